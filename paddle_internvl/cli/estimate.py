"""Estimate a model's memory on each card, whether it fits, and which settings would make it fit.

Only config.json is needed. Weights and KV cache are counted; activations are held to measurements on a CPU, and only
calculated for cards. With --gpus N the model is sharded over as many of them as can share it. With --train RECIPE the
memory of training: each of N cards has a micro-batch, and the recipe's sharding is over them. Exit code 1 where it does
not fit.

examples:
  paddle-internvl estimate configs/internvl2_5-78b.json --gpus 4 --memory 80
  paddle-internvl estimate CKPT --memory 24 --batch 8 --context 4096 --tiles 7
  paddle-internvl estimate CKPT --device cpu --json
  paddle-internvl estimate configs/internvl2_5-78b.json --plot memory.svg
  paddle-internvl estimate configs/internvl2_5-8b.json --train RECIPE.json --gpus 8 --memory 80
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli import conventions, estimate_training
from paddle_internvl.cli.argument_types import plot_file

_GB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CONFIG|CKPT", help="config.json, checkpoint folder or hub id")
    parser.add_argument("--train", type=Path, metavar="RECIPE", help="estimate training by this recipe")
    parser.add_argument("--method", choices=("sft", "mpo"), help="training: sft or mpo (default: the recipe's)")
    parser.add_argument("--gpus", type=int, default=1, help="cards there are (default: 1)")
    parser.add_argument("--memory", type=float, metavar="GB", help="of each card, in GiB")
    parser.add_argument("--tp", type=int, help="cards that share the model (default: as many of --gpus as can)")
    parser.add_argument("--bits", type=int, choices=(8, 4), help="of the decoder blocks' linear weights")
    parser.add_argument("--quantize-head", action="store_true", help="with --bits: the output head too")
    parser.add_argument("--int8-activations", action="store_true", help="CPU: the vision tower in int8 too")
    parser.add_argument("--dtype", help="bfloat16 (default), float16 or float32; training: by the recipe's bf16")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="(default: gpu)")
    parser.add_argument("--kernels", choices=("on", "off"), default="on", help="a CPU's C++ operators (default: on)")
    parser.add_argument("--batch", type=int, help="answers at once (default: 1); training: samples of a micro-batch")
    parser.add_argument("--tiles", type=int, help="of each prompt's pictures (default: the config's limit for one)")
    parser.add_argument(
        "--context", type=int, help="tokens of prompt and answer (default: 8192); training: of a sample"
    )
    parser.add_argument(
        "--plot", type=plot_file, metavar="FILE", help="draw cards and bits (training: changes of the recipe) as bars"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    from convert.folder import read_config
    from convert.mappings import paddle_config
    from paddle_internvl import estimation
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.estimation import plots
    from paddle_internvl.parallel.shards import ShardPlan

    config = paddle_config(read_config(chat_folder(arguments.checkpoint, weights=False)))
    if arguments.gpus < 1 or (arguments.memory is not None and arguments.memory <= 0):
        raise ValueError("--gpus and --memory must be above 0")
    if arguments.train is not None:
        return estimate_training.run(config, arguments)
    possible = ShardPlan.of(config["llm_config"], 0, 1).possible_sizes
    gpus = arguments.gpus
    if arguments.device == "cpu" and gpus > 1:
        raise ValueError("--gpus is for --device gpu")
    plan = estimation.Plan(
        batch=1 if arguments.batch is None else arguments.batch,
        context=8192 if arguments.context is None else arguments.context,
        tiles=_max_tiles(config) if arguments.tiles is None else arguments.tiles,
        tp=arguments.tp or max(n for n in possible if n <= gpus),
        bits=arguments.bits,
        quantize_head=arguments.quantize_head,
        int8_activations=arguments.int8_activations,
        dtype=arguments.dtype or "bfloat16",
        device=arguments.device,
        kernels=arguments.kernels == "on",
    )
    if plan.tp > gpus:
        raise ValueError(f"--tp {plan.tp} needs as many cards; --gpus is {gpus}")
    estimated = estimation.estimate(config, plan)
    room = None if arguments.memory is None else int(arguments.memory * _GB)
    fits = None if room is None else estimated.total <= room
    others = [] if fits in (None, True) else estimation.fitting_plans(config, plan, gpus, room)
    counts = estimation.parameter_counts(config)
    if arguments.plot:
        title = (
            f"{Path(arguments.checkpoint).stem}: batch {plan.batch}, context {plan.context}, {plan.tiles} tiles each"
        )
        plots.draw(plots.rows_of(config, plan, gpus), title, room, arguments.plot)
    if arguments.json:
        document = {
            "plan": asdict(plan),
            "parameters": {
                "total": counts.total,
                "language model": counts.parts["language_model"],
                "language model of a token": counts.active,
            },
            "bytes on each device": {**asdict(estimated), "total": estimated.total},
            "memory": room,
            "fits": fits,
            "would fit": [{"plan": asdict(p), "total": e.total} for p, e in others],
            "possible tp": possible,
        }
        print(json.dumps(document))
    else:
        if counts.active < counts.parts["language_model"]:
            whole = counts.parts["language_model"]
            print(
                f"a token reads {counts.active / 1e9:.1f} of the language model's {whole / 1e9:.1f} billion parameters"
            )
        _show(plan, estimated, room, others, possible)
    return EXIT_OK if fits in (None, True) else EXIT_DIFFERENT


def _max_tiles(config: dict) -> int:
    """Of a picture, its thumbnail counted."""
    limit = config.get("max_dynamic_patch", 6)
    return limit + (1 if config.get("use_thumbnail", False) and limit > 1 else 0)


def _show(plan, estimated, room: int | None, others, possible: list[int]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in {**asdict(estimated), "total": estimated.total}.items():
        assumed = " (assumed)" if name == "runtime" and value else ""
        table.add_row(name.replace("_", " "), f"{value / _GB:.2f} GiB{assumed}")
    print(f"on each device: {_words(plan)}; tp may be {', '.join(map(str, possible))}")
    conventions.console().print(table)
    if room is None:
        return
    if estimated.total <= room:
        print(f"fits into {room / _GB:g} GiB")
        return
    print(f"does not fit into {room / _GB:g} GiB" + ("" if others else ", nor would it with more cards or fewer bits"))
    for other, size in others:
        print(f"would fit: {_words(other)}: {size.total / _GB:.2f} GiB")


def _words(plan) -> str:
    bits = f", {plan.bits} bits" + ", head too" * plan.quantize_head if plan.bits else ""
    bits += ", int8 activations" * plan.int8_activations
    dtype = "float32" if plan.device == "cpu" and plan.matrix_bytes == 4 else plan.dtype
    return f"tp {plan.tp}, {dtype}{bits}, batch {plan.batch}, context {plan.context}, {plan.tiles} tiles each"
