"""Check this machine and installation, with advice for each problem.

With --gpu it runs the card: every fused operation beside its plain twin, the bundled checkpoint's answers beside a
CPU's, speed beside the card's peak; the report goes to a file to send in. Exit code 1 if something is wrong.

examples:
  paddle-internvl doctor
  paddle-internvl doctor --json
  paddle-internvl doctor --report          # Markdown, to be pasted into an issue
  paddle-internvl doctor --gpu --out gpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl import __version__

OK, NOTE, PROBLEM = "ok", "note", "problem"
_COLORS = {OK: "green", NOTE: "yellow", PROBLEM: "red"}
_COLUMNS = (("state", 7), ("subject", 16), ("found", 0.6), ("advice", 0.4))
_REQUIRED = ("paddlenlp", "numpy", "pillow", "safetensors", "sentencepiece")
_OPTIONAL = {  # distribution -> purpose
    "av": "videos",
    "opencv-python-headless": "videos without av",
    "decord": "the model cards' own video examples",
    "fastapi": "the server",
    "prompt_toolkit": "line editing in chat",
    "ray": "replicas and batches on several processes",
    "matplotlib": "--plot",
    "gradio": "the web demo",
    "torch": "live comparison with the reference in tests",
}
_ROOT = Path(__file__).parents[2]
_CHECKPOINT, _CONFIG = _ROOT / "demo/checkpoints/internvl-tiny", _ROOT / "configs/internvl2_5-1b.json"


@dataclass(frozen=True)
class Finding:
    """One check of the installation.

    Attributes:
        subject: the package or part that is checked.
        state: OK, NOTE or PROBLEM.
        detail: version, or the problem.
        advice: the way out; '' if none is needed.
    """

    subject: str
    state: str
    detail: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """The finding as JSON values."""
        return {"what": self.subject, "state": self.state, "detail": self.detail, "advice": self.advice}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument("--json", action="store_true", help="print one JSON document")
    shapes.add_argument("--report", action="store_true", help="print Markdown for an issue: machine, versions, caches")
    parser.add_argument("--gpu", action="store_true", help="measure the card, and write what was found to a file")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="F", help="(default: gpu.json)")
    parser.add_argument(
        "--checkpoint", type=Path, default=_CHECKPOINT, help="that --gpu asks (default: the bundled one)"
    )
    parser.add_argument("--config", type=Path, default=_CONFIG, help="that --gpu times (default: InternVL2.5-1B's)")


def findings() -> Iterator[Finding]:
    """All checks, in the order in which a problem would show, each as soon as it is done."""
    yield Finding("paddle_internvl", OK, __version__)
    yield _python()
    yield from _packages()
    paddle = _paddle()
    yield paddle
    if paddle.state != PROBLEM:
        yield _paddlenlp()
        yield from _cuda()
        yield _threads()
        yield _kernels()
    yield from _optional()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding("Python", OK, version)
    return Finding("Python", PROBLEM, version, "use Python 3.10, 3.11 or 3.12: Paddle 3.3 has no wheel for others")


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    found = []
    for name in _REQUIRED:
        version = _version(name)
        advice = "" if version else f"pip install {name}"
        found.append(Finding(name, OK if version else PROBLEM, version or "not installed", advice))
    return found


def _paddle() -> Finding:
    from paddle_internvl import startup

    builds = [name for name in ("paddlepaddle", "paddlepaddle-gpu") if _version(name)]
    if not builds:
        return Finding("Paddle", PROBLEM, "not installed", "pip install paddlepaddle==3.3.1, or a GPU build (README)")
    if len(builds) == 2:
        return Finding("Paddle", PROBLEM, "both builds are installed", "pip uninstall paddlepaddle, keep the GPU build")
    detail = f"{builds[0]} {_version(builds[0])}"
    try:
        startup.import_paddle()
    except Exception as error:  # any reason that keeps it from importing is the finding
        return Finding("Paddle", PROBLEM, f"{detail} can't be imported: {error}", "reinstall with the pins of setup.py")
    return Finding("Paddle", OK, detail)


def _paddlenlp() -> Finding:
    from paddlenlp.transformers.auto.modeling import _BaseAutoModelClass

    import paddle_internvl  # noqa: F401

    wrapped = hasattr(_BaseAutoModelClass._get_model_class_from_config, "__wrapped__")
    if wrapped:
        return Finding("registration", OK, "PaddleNLP's Auto classes know InternVL")
    return Finding("registration", PROBLEM, "AutoModel does not know InternVL", "use paddlenlp==3.0.0b4")


def _cuda() -> list[Finding]:
    import paddle

    from paddle_internvl import runtime
    from paddle_internvl.ops import dispatch

    driver = _driver() or "none"
    capability = runtime.cuda_capability()
    if not paddle.is_compiled_with_cuda():
        advice = "the large models want a card"
        if driver != "none":
            advice = "install paddlepaddle-gpu (README) to use the card"
        card = Finding("CUDA", NOTE, f"CPU build of Paddle, NVIDIA driver: {driver}", advice)
    elif capability is None:
        card = Finding("CUDA", PROBLEM, f"GPU build of Paddle, but no card, driver: {driver}", "check nvidia-smi")
    else:
        name, sm = paddle.device.cuda.get_device_name(), "".join(map(str, capability))
        card = Finding("CUDA", OK, f"{paddle.version.cuda()}, driver {driver}, {name}, sm{sm}")
    dtype = runtime.choose_dtype(None, runtime.choose_device())[0]
    device = runtime.choose_device().partition(":")[0]
    attention = dispatch.choose_for("attention", dispatch.Case(device, dtype))
    flash = attention == "flash"
    reason = "needs a card of sm80 or newer" if capability else ""  # without a card its own line has the advice
    return [
        card,
        _bfloat16(dtype, reason) if device == "gpu" else _bfloat16_on_cpu(),
        *([] if device == "gpu" else _int8_activations()),
        Finding(
            "flash attention",
            OK if flash else NOTE,
            "yes" if flash else f"no: {attention!r} is used",
            "" if flash else reason,
        ),
    ]


def _bfloat16(dtype: str, reason: str) -> Finding:
    half = dtype == "bfloat16"
    return Finding("bfloat16", OK if half else NOTE, "yes" if half else f"no: {dtype} is used", "" if half else reason)


def _bfloat16_on_cpu() -> Finding:
    from paddle_internvl.kernels import library

    isa = library.bfloat16_isa()
    if isa:
        return Finding("bfloat16", OK, f'{isa}, with dtype="bfloat16"; else float32')
    kept = 'dtype="bfloat16" keeps weights in bfloat16 and sums exactly in float32'
    return Finding("bfloat16", NOTE, "no instructions of this processor: float32 is used", kept)


def _int8_activations() -> list[Finding]:
    """Instructions of products with int8 activations; without kernels there are none, and no line."""
    from paddle_internvl.kernels import library

    if library.unavailable_reason():
        return []
    isa = library.int8_isa()
    if isa != "plain":
        return [Finding("int8 activations", OK, f"{isa}, with int8_activations=True and quantized weights")]
    return [Finding("int8 activations", NOTE, "no instructions of this processor", "they take longer than float32")]


def _driver() -> str | None:
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return lines[0].strip() if lines else None


def _threads() -> Finding:
    from paddle_internvl import runtime

    cores, threads = runtime.cpu_cores(), os.environ.get("OMP_NUM_THREADS")
    if threads == str(cores):
        return Finding("CPU threads", OK, f"{threads} of {cores} cores")
    advice = "unset OMP_NUM_THREADS to use every core" if threads else "import paddle_internvl before paddle"
    return Finding("CPU threads", NOTE, f"OMP_NUM_THREADS={threads}, {cores} cores", advice)


def _kernels() -> Finding:
    from paddle_internvl.kernels import library

    reason = library.unavailable_reason()
    if not reason:
        return Finding("CPU kernels", OK, f"built, {library.isa()}")
    lost = "decoding and vision run on Paddle's own operators, and bfloat16 weights take twice the memory"
    return Finding("CPU kernels", NOTE, f"none: {reason}", lost)


def _optional() -> list[Finding]:
    found = []
    for name, purpose in _OPTIONAL.items():
        version = _version(name)
        detail = f"{version or 'not installed'} ({purpose})"
        found.append(Finding(name, OK if version else NOTE, detail, "" if version else f"pip install {name}"))
    return found


def run(arguments: argparse.Namespace) -> int:
    import_module("convert")  # the converter is part of the installation too
    if arguments.gpu:
        from paddle_internvl.cli import card_report

        return card_report.write(
            arguments.checkpoint,
            arguments.config,
            arguments.out,
            lambda: [finding.document() for finding in findings()],
            as_json=arguments.json,
        )
    found = list(findings()) if arguments.json or arguments.report else _show(findings())
    if arguments.json:
        print(json.dumps([finding.document() for finding in found], ensure_ascii=False))
    elif arguments.report:
        from paddle_internvl.cli import doctor_report

        print(doctor_report.markdown(found), end="")
    return EXIT_DIFFERENT if any(finding.state == PROBLEM for finding in found) else EXIT_OK


def _show(found: Iterable[Finding]) -> list[Finding]:
    """Show each finding as soon as it is known; returns all."""
    from paddle_internvl.cli.live_table import LiveTable

    shown = []
    with LiveTable(_COLUMNS, header=False) as table:
        table.status("checking")
        for finding in found:
            state = f"[{_COLORS[finding.state]}]{finding.state}[/]"
            table.add_row(state, finding.subject, finding.detail, finding.advice)
            shown.append(finding)
    return shown
