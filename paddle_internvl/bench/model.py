"""The benchmark of a model's stages beside PyTorch: folders made, stages run, one document of it all.

In: a config.json (random weights are drawn) or a raw checkpoint folder. Out: a dict for JSON. The order of things is
here; what a stage is, how it is timed and counted lies in `stages`, `turns` and `figures`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import prod
from pathlib import Path

from convert.folder import read_config
from convert.mappings import rules_for
from convert.safetensors_io import Checkpoint
from convert.streaming import convert, is_paddle_layout
from paddle_internvl.bench import conversion, figures, machine
from paddle_internvl.bench.random_checkpoint import write_random
from paddle_internvl.bench.stages import CONTENDERS, CONVERTED, select
from paddle_internvl.bench.turns import FOREIGN_LIMIT, Bench
from paddle_internvl.bench.work import Costs

KERNELS = "PADDLE_INTERNVL_KERNELS"
_PARTS = {"vision": ("vision_model.", "mlp1."), "language": ("language_model.",), "all": ("",), "": ()}


def has_reference() -> bool:
    """Whether torch and transformers are installed."""
    return all(find_spec(name) for name in ("torch", "transformers"))


def measured_machine() -> dict:
    """The machine and its measured peaks."""
    peaks = {"flops": machine.peak_flops(), "bandwidth": machine.peak_bandwidth()}
    return {**machine.describe(), "peaks": {name: round(value) for name, value in peaks.items()}}


def bench_model(
    checkpoint: Path,
    described: dict,
    *,
    stages: Sequence[str] | None = None,
    rounds: int = 3,
    kernels: bool = True,
    reference: bool = True,
    device: str | None = None,
    scratch: Path | None = None,
    told: Callable[[str], None] = lambda what: None,
    done: Callable[[dict], None] = lambda document: None,
    least_seconds: float = 0.5,
    tries: int = 3,
) -> dict:
    """Measure one model.

    Args:
        checkpoint: a config.json or a raw Hugging Face folder. described: see `measured_machine`.
        stages: names or kinds; None: all. rounds: of turns. kernels: False switches ours off, for comparison.
        reference: whether torch takes part. device: 'cpu', 'gpu' or None. scratch: folder to work in, on the disk that
            conversion is measured on. told: called before each turn. done: called with the
            document after each stage, so that a run that is broken off leaves what it has.
        least_seconds, tries: see `turns.Bench`.
    Returns:
        `.model`, `.machine`, and the stages' figures.
    Raises:
        ValueError: an unknown stage, a folder in Paddle's layout, or a side that failed.
    """
    chosen, converts = select(stages)
    config = read_config(checkpoint)
    costs, counts = Costs(config), _bytes_of_parts(config)
    document = {
        "benchmark": "model",
        "model": checkpoint.stem,
        "parameters": counts["all"] // 4,
        "machine": described,
        "kernels": "on" if kernels else "off",
        "rounds": rounds,
        "foreign limit": FOREIGN_LIMIT,
        "stages": [],
    }
    with _folders(checkpoint, config, any(CONVERTED in stage.contenders for stage in chosen), scratch) as folders:
        with Bench(
            contenders={name: c for name, c in CONTENDERS.items() if reference or c.side == "ours"},
            folders=folders,
            scratch=folders["scratch"],
            rounds=rounds,
            tries=tries,
            least_seconds=least_seconds,
            environment={} if kernels else {KERNELS: "off"},
            device=device,
            needs=counts,
            told=told,
        ) as bench:
            for stage in chosen:
                document["stages"].append(figures.summary(stage, *bench.run(stage), costs, described["peaks"]))
                done(document)
        if converts:
            document["stages"].append(conversion.run(bench))
            done(document)
    return document


def _bytes_of_parts(config: dict) -> dict[str, int]:
    """Bytes of the weights of each part as float32."""
    sizes = {name: prod(s) for rule in rules_for(config) for name, s in zip(rule.upstream, rule.shapes)}
    return {part: 4 * sum(n for name, n in sizes.items() if name.startswith(p)) for part, p in _PARTS.items()}


@contextmanager
def _folders(checkpoint: Path, config: dict, converted: bool, scratch: Path | None) -> Iterator[dict[str, Path]]:
    """'hf', 'paddle' where it is needed, and 'scratch'; what was made is removed again."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="paddle-internvl-bench-", dir=scratch))
    try:
        if checkpoint.suffix == ".json":
            folder = write_random(work / "hf", config)
        else:
            folder = checkpoint
            if is_paddle_layout(Checkpoint(folder)):
                raise ValueError(f"{folder} is in Paddle's layout; torch reads raw Hugging Face folders, so give one")
        folders = {"hf": folder, "scratch": work}
        if converted:
            convert(folder, work / "paddle", to_paddle=True)
            folders["paddle"] = work / "paddle"
        yield folders
    finally:
        shutil.rmtree(work)
