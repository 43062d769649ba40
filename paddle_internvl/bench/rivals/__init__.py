"""Rival engines of the benchmark, which run the same weights: OpenVINO and llama.cpp, each in a process of its own.

A rival is found by import here, or in another environment whose interpreter is given: its packages need not fit
Paddle's. `../reference.py` is PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

PACKAGES = {  # side of a contender -> what its process imports
    "torch": ("torch", "transformers", "PIL"),
    "openvino": ("openvino", "PIL"),
    "llama.cpp": ("llama_cpp", "gguf", "PIL"),
}
TRAINING_PACKAGES = {"torch": (*PACKAGES["torch"], "peft")}
ROOT = Path(__file__).parents[3]


def interpreters(
    requested: Mapping[str, str] | None, packages: Mapping[str, Sequence[str]] = PACKAGES
) -> dict[str, str]:
    """The Python interpreter of every rival that takes part.

    Args:
        requested: rival -> interpreter, '' for this one; None: every rival that can be imported here.
        packages: rival -> what its process imports: `PACKAGES` or `TRAINING_PACKAGES`.
    Returns:
        Rival -> interpreter.
    Raises:
        ValueError: a requested rival is unknown, or its packages are not installed there.
    """
    if requested is None:
        return {name: sys.executable for name, needed in packages.items() if all(map(find_spec, needed))}
    found = {}
    for name, python in requested.items():
        if name not in packages:
            raise ValueError(f"{name!r} is no rival of the benchmark; choose {', '.join(packages)}")
        found[name] = python or sys.executable
        code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {packages[name]})))"
        if subprocess.run([found[name], "-c", code]).returncode:
            raise ValueError(f"{' and '.join(packages[name])} are not installed for {found[name]}, so {name} can't run")
    return found


def environment() -> dict[str, str]:
    """Variables with which another environment's interpreter imports this package."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def write_gguf(python: str, folder: Path, out: Path, kinds: Sequence[str]) -> Path:
    """Write the GGUF files of a checkpoint folder in a process of llama.cpp's interpreter, see `gguf_file`.

    Raises:
        ValueError: it failed; holds its last line.
    """
    command = [python, "-m", f"{__name__}.gguf_file", str(folder), str(out), *kinds]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment()})
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ValueError(f"the GGUF files were not written: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return out
