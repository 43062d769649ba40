"""Report about a card: machine, parity of every implementation, answers, roofline.

In: a checkpoint, a config and the device. Out: a dict for JSON, and whether all checks passed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import paddle

import paddle_internvl
from convert.folder import read_config
from convert.mappings import paddle_config
from paddle_internvl import runtime
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.ops import dispatch
from paddle_internvl.verification import roofline
from paddle_internvl.verification.probes import measure_all

QUESTIONS = ("How many objects are there?", "Describe the image.", "What is this?")
_ANSWER = {"max_new_tokens": 48}


def machine(dtype: str) -> dict:
    """Versions, the card, and the implementations that it takes for each operation."""
    description = {
        "paddle_internvl": paddle_internvl.__version__,
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "paddle_commit": paddle.version.commit,
        "dtype": dtype,
    }
    device = "cpu"
    if runtime.cuda_capability():
        device = "gpu"
        card = paddle.device.cuda.get_device_properties()
        description |= {
            "card": paddle.device.cuda.get_device_name(),
            "capability": runtime.cuda_capability(),
            "cuda": paddle.version.cuda(),
            "cudnn": paddle.version.cudnn(),
            "memory": card.total_memory,
            "cards": paddle.device.cuda.device_count(),
        }
    case, machine = dispatch.Case(device, dtype), dispatch.this_machine()
    description["forms"] = {
        operation: {candidate.name: candidate.obstacle(case, machine) or "available" for candidate in candidates}
        for operation, candidates in dispatch.CANDIDATES.items()
    }
    description["taken"] = {operation: dispatch.choose_for(operation, case) for operation in dispatch.CANDIDATES}
    return description


def answers(checkpoint: Path, picture: Path, dtype: str, device: str) -> dict:
    """Answers on the device in `dtype`, one by one and in a batch, and on a CPU in float32; with their seconds."""
    document = {"questions": list(QUESTIONS), "checkpoint": checkpoint.name}
    content = [{"type": "image", "image": str(picture)}]
    rounds = [[{"role": "user", "content": [*content, {"type": "text", "text": text}]}] for text in QUESTIONS]
    for name, place, model_dtype in (("cpu", "cpu", "float32"), ("card", device, dtype)):
        paddle.set_device(place)
        model = InternVLChatModel.from_pretrained(str(checkpoint), device=place, dtype=model_dtype)
        start = time.perf_counter()
        document[name] = [model.chat_messages(messages, _ANSWER).text for messages in rounds]
        document[f"{name}_seconds"] = time.perf_counter() - start
        if name == "card":
            document["batch"] = [response.text for response in model.batch_chat_messages(rounds, _ANSWER)]
    document["same"] = document["card"] == document["cpu"]
    document["batch_same"] = document["batch"] == document["card"]
    return document


def examine(
    checkpoint: Path, config: Path, device: str, on_progress: Callable[[str], None] = lambda line: None, **sizes
) -> tuple[dict, bool]:
    """Run all checks of a device.

    Args:
        checkpoint: folder with a model, within the repository's demo, whose assets/shapes.png is asked about.
        config: config.json of the model whose speed is measured.
        device: 'gpu' or 'cpu'.
        on_progress: called with a line at the start of each check.
        sizes: arguments of `roofline.model_rows` and `roofline.peaks`, for small machines.
    Returns:
        The document, and whether every available implementation is within its bound and the answers equal a CPU's.
    """
    dtype, _ = runtime.choose_dtype(None, device)
    paddle.set_device(device)
    document: dict = {"machine": machine(dtype)}
    on_progress("parity of every implementation with the reference")
    document["parity"] = [asdict(parity) for parity in measure_all(dtype)]
    on_progress("answers of the checkpoint")
    picture = checkpoint.parents[1] / "assets/shapes.png"
    document["answers"] = answers(checkpoint, picture, dtype, device)
    on_progress("speed beside the device's own")
    peaks = {name: sizes.pop(name) for name in ("side", "megabytes") if name in sizes}
    architecture = InternVLChatConfig.from_dict(paddle_config(read_config(config)))
    rows = roofline.peaks(dtype, **peaks) + roofline.model_rows(architecture, dtype, **sizes)
    document["roofline"] = {"config": config.name, "rows": [asdict(row) for row in rows]}
    passed = all(parity["state"] in ("ok", "not here") for parity in document["parity"])
    return document, passed and document["answers"]["same"] and document["answers"]["batch_same"]
