"""The report of `doctor --report`: machine, installation and findings as Markdown, to be pasted into an issue.

In: findings of `doctor`. Out: Markdown without keys and endpoints; the home folder is written as ~.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from paddle_internvl import __version__, runtime
from paddle_internvl.bench.machine import instruction_sets, memory, processor, versions
from paddle_internvl.cli.info_tables import bytes_text
from paddle_internvl.kernels import building

_INSTRUCTION_SETS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
)  # fmt: skip
_PACKAGES = (
    "paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "aistudio-sdk", "numpy", "pillow", "safetensors", "sentencepiece",
    "tokenizers", "protobuf", "huggingface-hub", "modelscope", "rich", "prompt_toolkit", "httpx", "fastapi", "uvicorn",
    "pydantic", "gradio", "ray", "llguidance", "av", "opencv-python-headless", "decord", "matplotlib", "torch",
    "transformers",
)  # fmt: skip
_SHOWN = (  # environment variables with their values
    "PADDLE_INTERNVL_HUB", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CXX", "NO_COLOR",
)  # fmt: skip
_NAMED = ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "HTTPS_PROXY", "https_proxy")  # by name alone: they may hold a host
_CACHES = {"HF_HOME": "~/.cache/huggingface", "MODELSCOPE_CACHE": "~/.cache/modelscope"}  # variable -> default
_ROOT = Path(__file__).parents[2]


def markdown(findings: Iterable) -> str:
    """The report.

    Args:
        findings: `doctor.Finding`s.
    """
    lines = ["### paddle-internvl doctor --report", "", "| machine | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in machine()]
    lines += ["", "| check | state | found | advice |", "|---|---|---|---|"]
    lines += [f"| {f.subject} | {f.state} | {_cell(f.detail)} | {_cell(f.advice)} |" for f in findings]
    packages = ", ".join(f"{name} {version}" for name, version in versions(_PACKAGES).items())
    return "\n".join([*lines, "", f"Packages: {packages}", ""])


def machine() -> list[tuple[str, str]]:
    """(name, text) of the machine's and the installation's parts."""
    home = str(Path.home())
    rows = [
        ("paddle_internvl", f"{__version__}{_commit()}"),
        ("system", platform.platform()),
        ("Python", f"{platform.python_version()} {platform.python_implementation()}"),
        ("processor", f"{processor()}, {runtime.cpu_cores()} cores for this process"),
        ("instruction sets", ", ".join(instruction_sets(_INSTRUCTION_SETS)) or "not known"),
        ("memory", f"{bytes_text(memory())}, {bytes_text(runtime.free_memory('cpu'))} free"),
        ("compiler", _compiler()),
        ("environment", _environment()),
        ("kernel cache", _folder(building.cache_folder())),
        *((name, _folder(Path(os.environ.get(name) or default).expanduser())) for name, default in _CACHES.items()),
        ("temporary folder", _folder(Path(os.environ.get("TMPDIR", "/tmp")))),
    ]
    return [(name, text.replace(home, "~") if len(home) > 1 else text) for name, text in rows]


def _environment() -> str:
    shown = [f"{name}={os.environ[name]}" for name in _SHOWN if name in os.environ]
    return ", ".join([*shown, *(f"{name} is set" for name in _NAMED if os.environ.get(name))]) or "-"


def _commit() -> str:
    """The commit of a checkout, '' of an installed package."""
    if not (_ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _compiler() -> str:
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        return f"no {name}"
    return subprocess.run([name, "--version"], capture_output=True, text=True).stdout.partition("\n")[0] or name


def _folder(folder: Path) -> str:
    """A folder, whether it exists, and the free space of its disk."""
    there = folder
    while not there.exists():
        there = there.parent
    free = bytes_text(shutil.disk_usage(there).free)
    return f"{folder}{'' if folder.exists() else ' (not there)'}, {free} free"


def _cell(text: str) -> str:
    """Text without what ends a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
