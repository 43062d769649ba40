"""Packaging. The pins are those that work together; each odd one says what it mends."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "paddle_internvl/__init__.py").read_text(encoding="utf-8"))[1]

REQUIRED = [
    # With any aistudio-sdk, though paddlenlp needs `hub.download`, which 0.3 dropped: `paddlenlp_import` supplies it.
    # Tried in one environment with paddleocr 3.7.0, which needs 0.3: chat and `import paddleocr` in one process.
    "paddlenlp==3.0.0b4",
    "datasets<4",  # paddlenlp 3.0.0b4 was written for datasets 3
    "pyarrow<20",  # later ones need numpy 2, paddlenlp pins numpy 1
    "numpy>=1.24,<2",
    "pillow>=10.1",
    "safetensors>=0.4",
    "protobuf>=4",  # SentencePiece models whose blank in front is switched off
    "regex>=2024.4",
    "sentencepiece>=0.2",
    "tokenizers>=0.21,<0.22",
    "paddle2onnx>=2.1; python_version >= '3.12'",  # older ones need an onnxoptimizer that has no wheel there
    "huggingface-hub>=0.30",
    "modelscope>=1.40",
    "requests>=2.28",
    "rich>=13",
    "shtab>=1.7",
    "tqdm>=4.60",
]
# Paddle itself is an extra, since the CPU and GPU builds are two packages of which only one may be installed.
EXTRAS = {
    "cpu": ["paddlepaddle==3.3.1"],
    "gpu": ["paddlepaddle-gpu>=3.0"],
    "chat": ["prompt_toolkit>=3.0.43", "httpx>=0.28"],  # line editing, and `chat --url`
    # decord is for the model cards' own lines; the package reads clips by PyAV or OpenCV.
    "video": ["av>=14.2", "opencv-python-headless>=4.8", "decord>=0.6; platform_machine == 'x86_64'"],
    "serve": [
        "fastapi>=0.110",
        "fastapi-swagger>=0.4.64",  # Swagger UI as files
        "uvicorn>=0.30",
        "pydantic>=2.9",
        "prometheus-client>=0.20",
        "pyyaml>=6",
        "httpx>=0.28",
        "httpcore>=1.0.9",
        "anyio>=4.9",
    ],
    "structured": ["llguidance>=1.9,<2"],  # constrained decoding; a wheel without dependencies
    "scale": ["ray[data,serve]>=2.60,<2.61"],  # 2.64 drops the `max_restarts` that batch uses
    "demo": ["gradio>=6,<7"],
    "notebooks": ["ipykernel>=6.29", "matplotlib>=3.8", "openai>=1.60"],
    "plots": ["matplotlib>=3.8"],
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "mkdocs-static-i18n>=1.2"],
    "bench": ["torch==2.13.0", "transformers==4.55.4", "psutil>=5.9"],
    "rivals": ["openvino>=2026.2", "llama-cpp-python>=0.3.30", "gguf>=0.17"],  # beside `bench`; see docs/speed.md
    "captions": ["pycocoevalcap>=1.2"],  # CIDEr of `eval score`; upstream's rules also need Java
    "train": ["visualdl>=2.5"],
    "curate": [
        "math-verify>=0.9",
        "antlr4-python3-runtime==4.11.*",  # sympy reads LaTeX with it
        "datasketch>=1.6",
        "httpx>=0.28",
    ],
    "evaluation": ["openpyxl>=3.1"],
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.6",
        "transformers==4.55.4",
        "setuptools>=64",
        "wheel",
        "openai>=1.60",
        "schemathesis>=4",
        "trustme>=1.1",
        "psutil>=5.9",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "playwright>=1.45",
        "axe-playwright-python>=0.1.4",
        "pycocoevalcap>=1.2",
        "jsonschema>=4.20",
    ],
}

setup(
    name="paddle_internvl",
    version=VERSION,
    description="InternVL 2 / 2.5 / 2.5-MPO on PaddlePaddle: converter, models, chat",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["paddle_internvl*", "convert*"]),
    package_data={"paddle_internvl.kernels": ["csrc/*"], "paddle_internvl.serve": ["static/*"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["paddle-internvl=paddle_internvl.cli.main:main_and_exit"]},
    classifiers=["Programming Language :: Python :: 3", "License :: OSI Approved :: MIT License"],
)
