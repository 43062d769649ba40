"""Dry run of `eval run`: workload, memory, and the least time that this machine takes."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK

_SHOWN_FAULTS = 3
_GB = 1024**3


def show_workloads(arguments: argparse.Namespace, settings) -> int:
    """Print the workload of every benchmark of a run. Nothing is loaded but config and tokenizer.

    Args:
        arguments: of `eval run`.
        settings: an `AskSettings`.
    """
    from convert.folder import read_config
    from convert.mappings import paddle_config
    from paddle_internvl import startup
    from paddle_internvl.bench.machine import peaks
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.evaluation.chats import is_endpoint
    from paddle_internvl.evaluation.dry_run import workload
    from paddle_internvl.evaluation.suite import plan

    startup.import_paddle()
    if is_endpoint(arguments.model):
        raise ValueError("--dry-run counts tokens by a checkpoint's tokenizer; name its folder")
    folder = Path(chat_folder(arguments.model, weights=False))
    config = paddle_config(read_config(folder))
    jobs = plan(arguments.data, arguments.data_root, settings, arguments.limit, arguments.benchmarks)
    loads = {job.benchmark.name: workload(job, folder) for job in jobs}
    limits = peaks()
    seconds = {
        name: least_seconds(config, load, arguments.answer_tokens, arguments.max_batch_size, limits)
        for name, load in loads.items()
    }
    memory = _memory(config, loads.values(), arguments)
    if arguments.json:
        rows = {name: {**_counts(load), "least seconds": seconds[name]} for name, load in loads.items()}
        print(json.dumps({"benchmarks": rows, "bytes": memory}))
    else:
        for name, load in loads.items():
            print(f"{name}: " + ", ".join(f"{value:,} {key}" for key, value in _counts(load).items()))
            faults = list(load.faults.items())[:_SHOWN_FAULTS]
            print("".join(f"  row {index}: {reason}\n" for index, reason in faults), end="")
            if seconds[name] is not None:
                least = datetime.timedelta(seconds=round(seconds[name]))
                print(f"  at least {least} on this CPU, with {arguments.answer_tokens} tokens an answer")
        print(f"memory: {memory / _GB:.2f} GiB, {arguments.max_batch_size} rows of the longest prompt decoded together")
    return EXIT_DIFFERENT if any(load.faults for load in loads.values()) else EXIT_OK


def least_seconds(config: Mapping, load, answer_tokens: int, batch: int, limits: Mapping[str, float]) -> float | None:
    """The least time of a workload: its work over the machine's measured peaks.

    Args:
        config: of the checkpoint.
        load: a `Workload`.
        answer_tokens: of each answer.
        batch: rows decoded together.
        limits: `machine.peaks()`; empty: the time can't be bounded.
    """
    from paddle_internvl.bench.work import Costs

    if not limits:
        return None
    costs = Costs(config)
    flops = costs.vision(load.tiles).flops + costs.projector(load.tiles).flops
    flops += sum(costs.prefill(tokens).flops for tokens, _ in load.prompts)
    mean = load.prompt_tokens // max(len(load.prompts), 1) + answer_tokens // 2
    step = costs.decode(mean, batch)
    steps = answer_tokens * -(-len(load.prompts) // batch)
    return flops / limits["flops"] + steps * max(step.flops / limits["flops"], step.bytes(32) / limits["bandwidth"])


def _counts(load) -> dict[str, int]:
    return {
        "rows": load.rows, "pictures": load.pictures, "tiles": load.tiles, "prompt tokens": load.prompt_tokens,
        "tokens of the longest prompt": load.longest[0], "tokens an answer at most": load.max_new_tokens,
        "rows that can't be asked": len(load.faults),
    }  # fmt: skip


def _memory(config: Mapping, loads, arguments: argparse.Namespace) -> int:
    """Bytes on each device, as `estimate` counts them."""
    from paddle_internvl import estimation, runtime

    device = runtime.choose_device(arguments.device)
    longest = max((load.longest for load in loads), default=(0, 0))
    plan = estimation.Plan(
        batch=arguments.max_batch_size, context=longest[0] + arguments.answer_tokens, tiles=longest[1],
        dtype="bfloat16" if arguments.dtype == "auto" else arguments.dtype, device=device,
    )  # fmt: skip
    return estimation.estimate(config, plan).total
