"""The benchmark of a model's stages beside PyTorch, OpenVINO and llama.cpp.

Makes the checkpoint folders, runs the stages, collects a document.
In: a config.json (random weights are drawn) or a raw checkpoint folder. Out: a dict for JSON. `stages` is the table of
stages, `trials` times them, `figures` summarises.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

from convert.folder import read_config
from convert.mappings import rules_for
from convert.safetensors_io import Checkpoint
from convert.streaming import convert, is_paddle_layout
from paddle_internvl.bench import conversion, figures, machine, rivals
from paddle_internvl.bench.random_checkpoint import write_random
from paddle_internvl.bench.stages import CONTENDERS, LLAMA, Contender, select
from paddle_internvl.bench.trials import FOREIGN_LIMIT, TrialRunner
from paddle_internvl.bench.work import Costs

KERNELS = "PADDLE_INTERNVL_KERNELS"
_PEAK_REPEATS = 2  # after each stage
_PARTS = {"vision": ("vision_model.", "mlp1."), "language": ("language_model.",), "all": ("",), "": ()}


def measured_machine() -> dict:
    """Description of this machine with its measured 'peaks', see `machine.peaks`."""
    return {**machine.describe(), "peaks": machine.peaks()}


def bench_model(
    checkpoint: Path,
    described_machine: dict,
    *,
    stages: Sequence[str] | None = None,
    rounds: int = 3,
    kernels: bool = True,
    interpreters: Mapping[str, str] | None = None,
    device: str | None = None,
    scratch: Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    on_stage: Callable[[dict], None] = lambda document: None,
    least_seconds: float = 0.5,
    tries: int = 3,
) -> dict:
    """Measure one model.

    Args:
        checkpoint: a config.json or a raw Hugging Face folder.
        described_machine: see `measured_machine`.
        stages: names or kinds of stages; None: all.
        rounds: trials of each contender.
        kernels: False runs our side without its C++ operators.
        interpreters: rival -> its Python interpreter, see `rivals.interpreters`; None: no rivals.
        device: 'cpu', 'gpu' or None.
        scratch: working folder; conversion measures its disk. None: the temporary folder.
        on_progress: called with a line before each trial.
        on_stage: called with the document after each stage, so that an interrupted run keeps its finished stages.
        least_seconds: of a trial, see `TrialRunner`.
        tries: of a disturbed trial, see `TrialRunner`.
    Returns:
        'model', 'machine', 'stages' (figures of each) and the arguments.
    Raises:
        ValueError: an unknown stage, a folder in Paddle's layout, or a contender that failed.
    """
    selected, with_conversion = select(stages)
    interpreters = dict(interpreters or {})
    sides = {"ours", *interpreters}
    config = read_config(checkpoint)
    costs, part_bytes = Costs(config), part_bytes_of(config)
    document = {
        "benchmark": "model",
        "model": checkpoint.stem,
        "parameters": part_bytes["all"] // 4,
        "machine": described_machine,
        "kernels": "on" if kernels else "off",
        "rounds": rounds,
        "foreign limit": FOREIGN_LIMIT,
        "stages": [],
    }
    contenders = {name: contender for name, contender in CONTENDERS.items() if contender.side in sides}
    lacking = lacking_instructions(contenders, described_machine["instruction sets"], kernels)
    contenders = {name: contender for name, contender in contenders.items() if name not in lacking}
    used = {contenders[name].folder for stage in selected for name in stage.contenders if name in contenders}
    with _folders(checkpoint, config, used, interpreters, scratch) as folders:
        with TrialRunner(
            contenders=contenders,
            folders=folders,
            scratch=folders["scratch"],
            rounds=rounds,
            tries=tries,
            least_seconds=least_seconds,
            environment={} if kernels else {KERNELS: "off"},
            interpreters=interpreters,
            device=device,
            part_bytes=part_bytes,
            on_progress=on_progress,
        ) as runner:
            for stage in selected:
                summary = figures.summary(stage, *runner.run(stage), costs, described_machine["peaks"])
                summary["lacking"] = {name: lacking[name] for name in stage.contenders if name in lacking}
                document["stages"].append(summary)
                # The neighbours of a virtual machine slow it down for minutes: peaks of one moment are no limits.
                described_machine["peaks"] = machine.higher(described_machine["peaks"], machine.peaks(_PEAK_REPEATS))
                on_stage(document)
        if with_conversion:
            document["stages"].append(conversion.run(runner))
    for summary in document["stages"]:
        figures.add_shares(summary, costs, described_machine["peaks"])
    on_stage(document)
    return document


def lacking_instructions(contenders: Mapping[str, Contender], sets: Sequence[str], kernels: bool) -> dict[str, str]:
    """Contenders whose instruction set this machine lacks, and that instruction set.

    Args:
        contenders: name -> contender.
        sets: instruction sets of the machine.
        kernels: whether our C++ operators are used, which alone use such instructions.
    """
    return {
        name: contender.needs
        for name, contender in contenders.items()
        if contender.needs and (contender.needs not in sets or (contender.side == "ours" and not kernels))
    }


def part_bytes_of(config: dict) -> dict[str, int]:
    """Bytes of the weights of each part as float32."""
    sizes = {name: prod(s) for rule in rules_for(config) for name, s in zip(rule.upstream, rule.shapes)}
    return {part: 4 * sum(n for name, n in sizes.items() if name.startswith(p)) for part, p in _PARTS.items()}


@contextmanager
def _folders(
    checkpoint: Path, config: dict, used: set[str], interpreters: Mapping[str, str], scratch: Path | None
) -> Iterator[dict[str, Path]]:
    """Folders 'hf' and 'scratch', and of 'paddle' and 'gguf' those in `used`; temporary ones are removed at the end."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="paddle-internvl-bench-", dir=scratch))
    try:
        if checkpoint.suffix == ".json":
            folder = write_random(work / "hf", config)
        else:
            folder = checkpoint
            if is_paddle_layout(Checkpoint(folder)):
                raise ValueError(f"{folder} is in Paddle's layout; rivals read raw Hugging Face folders, so give one")
        folders = {"hf": folder, "scratch": work}
        if "paddle" in used:
            convert(folder, work / "paddle", to_paddle=True)
            folders["paddle"] = work / "paddle"
        if "gguf" in used:
            folders["gguf"] = rivals.write_gguf(interpreters["llama.cpp"], folder, work / "gguf", [*LLAMA])
        yield folders
    finally:
        shutil.rmtree(work)
