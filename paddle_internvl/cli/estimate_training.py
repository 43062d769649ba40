"""`estimate --train RECIPE`: memory of training on each card, and the changes of a recipe with which it would fit."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli import conventions, train

_GB = 1 << 30


def run(config: Mapping, arguments: argparse.Namespace) -> int:
    """Estimate and show.

    Args:
        config: an InternVL's config.json, in upstream's spelling.
        arguments: of `estimate`.
    Raises:
        ValueError: an option that training does not have, or a value out of range.
    """
    from paddle_internvl.estimation import TrainPlan, estimate_training, plots

    if arguments.tp is not None:
        raise ValueError("--tp is not for --train")
    plan = TrainPlan.from_recipe(
        train.read_recipe(arguments.train), gpus=arguments.gpus, device=arguments.device, rows=arguments.batch,
        length=arguments.context, tiles=arguments.tiles, dtype=arguments.dtype, bits=arguments.bits,
        max_patches=config.get("max_dynamic_patch", 12), method=arguments.method,
    )  # fmt: skip
    estimated = estimate_training(config, plan)
    room = None if arguments.memory is None else int(arguments.memory * _GB)
    fits = None if room is None else estimated.total <= room
    others = []
    if fits is False or arguments.plot:
        milder = [(change, estimate_training(config, other)) for change, other in _milder(plan)]
        others = [(change, other) for change, other in milder if fits is False and other.total <= room]
    if arguments.plot:
        rows = [(label, _parts(other)) for label, other in [("the recipe", estimated), *milder]]
        plots.draw(rows, arguments.train.stem, room, arguments.plot)
    if arguments.json:
        parts = asdict(estimated)
        trained, at_once = parts.pop("trained"), parts.pop("peak")
        document = {
            "plan": asdict(plan),
            "bytes on each device": {**parts, "gradients and activations at once": at_once, "total": estimated.total},
            "trained parameters": trained,
            "memory": room,
            "fits": fits,
            "would fit": [{"change": change, "total": other.total} for change, other in others],
        }
        print(json.dumps(document))
    else:
        _show(plan, estimated, room, others)
    return EXIT_OK if fits in (None, True) else EXIT_DIFFERENT


def _milder(plan) -> Iterator[tuple[str, object]]:
    """Changes of a recipe, each alone; all but fewer bits leave the results as they are."""
    rows = plan.rows * plan.accumulation
    for smaller in (n for n in range(plan.rows - 1, 0, -1) if rows % n == 0):
        change = f"per_device_train_batch_size {smaller} and gradient_accumulation_steps {rows // smaller}"
        yield change, replace(plan, rows=smaller, accumulation=rows // smaller)
    if not plan.recompute:
        yield "recompute True", replace(plan, recompute=True)
    if plan.use_llm_lora and plan.bits is None:
        for bits in (8, 4):
            yield f"load_in_{bits}bit True (QLoRA)", replace(plan, bits=bits)
    if plan.method == "mpo" and plan.reference_model:
        yield "reference_log_probs FILE", replace(plan, reference_model=False)
    for stage in range(plan.sharding + 1, 4) if plan.gpus > 1 else ():
        yield f"sharding stage{stage}", replace(plan, sharding=stage)


def _parts(estimated) -> dict[str, int]:
    """The parts that add up to the total."""
    parts = {name: getattr(estimated, name) for name in ("weights", "reference", "optimizer", "runtime")}
    return {**parts, "gradients and activations at once": estimated.peak}


def _show(plan, estimated, room: int | None, others) -> None:
    from rich.table import Table

    sharding = f", sharding stage{plan.sharding}" if plan.sharding else ""
    bits = f", {plan.bits} bits" if plan.bits else ""
    kind = "bfloat16 with float32 master weights" if plan.low_precision else "float32"
    where = f"on each of {plan.gpus} cards" if plan.device == "gpu" else "on a CPU"
    samples = f"{plan.rows} pairs, 2" if plan.method == "mpo" else plan.rows
    print(
        f"{where}: {kind}{bits}{sharding}{', recompute' if plan.recompute else ''}, micro-batch of {samples} x "
        f"{plan.length} tokens with {plan.tiles} tiles each; {estimated.trained:,} trained parameters"
    )
    table = Table(show_header=False, box=None)
    reference = ("reference",) if estimated.reference else ()
    for name in ("weights", *reference, "optimizer", "gradients", "activations", "runtime", "total"):
        assumed = " (assumed)" if name == "runtime" and plan.device == "gpu" else ""
        table.add_row(name, f"{getattr(estimated, name) / _GB:.2f} GiB{assumed}")
    conventions.console().print(table)
    if plan.accumulation == 1:
        print("the total counts gradients and activations as far as they are alive at once")
    if room is None:
        return
    if estimated.total <= room:
        print(f"fits into {room / _GB:g} GiB")
        return
    print(f"does not fit into {room / _GB:g} GiB")
    for change, other in others:
        print(f"would fit: {change}: {other.total / _GB:.2f} GiB")
