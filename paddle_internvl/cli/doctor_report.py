"""The report of `doctor --report`: machine, installation and findings as Markdown, to be pasted into an issue.

In: findings of `doctor`. Out: Markdown without keys and endpoints; the home folder is written as ~.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from paddle_internvl import __version__, runtime
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
    versions = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    return "\n".join([*lines, "", "Packages: " + ", ".join(versions), ""])


def machine() -> list[tuple[str, str]]:
    """(name, text) of the machine's and the installation's parts."""
    home = str(Path.home())
    rows = [
        ("paddle_internvl", f"{__version__}{_commit()}"),
        ("system", platform.platform()),
        ("Python", f"{platform.python_version()} {platform.python_implementation()}"),
        ("processor", f"{_processor()}, {runtime.cpu_cores()} cores for this process"),
        ("instruction sets", ", ".join(_instruction_sets()) or "not known"),
        ("memory", f"{bytes_text(_memory())}, {bytes_text(runtime.free_memory('cpu'))} free"),
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


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of a checkout, '' of an installed package."""
    if not (_ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def _cpuinfo(field: str) -> str:
    file = Path("/proc/cpuinfo")
    match = re.search(rf"^{field}\s*: (.*)$", file.read_text(), re.M) if file.exists() else None
    return match[1] if match else ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instruction_sets() -> Sequence[str]:
    flags = set(_cpuinfo("(?:flags|Features)").split())
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
