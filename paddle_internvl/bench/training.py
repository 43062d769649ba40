"""The benchmark of training steps beside PyTorch, on random weights of a published shape with few layers.

In: a config.json. Out: a dict for JSON, as of `model.bench_model`. `training_stages` is the table of stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convert.folder import read_config
from paddle_internvl.bench import figures
from paddle_internvl.bench.model import KERNELS, part_bytes_of
from paddle_internvl.bench.random_checkpoint import shallow, write_random
from paddle_internvl.bench.training_stages import TRAINING_CONTENDERS, TRAINING_STAGES
from paddle_internvl.bench.trials import FOREIGN_LIMIT, TrialRunner
from paddle_internvl.bench.work import Costs

_STATES = 4  # weights, gradients and two moments


def bench_training(
    checkpoint: Path,
    described_machine: dict,
    scratch: Path,
    *,
    layers: int = 2,
    stages: Sequence[str] | None = None,
    rounds: int = 3,
    tries: int = 3,
    torch: str | None = None,
    device: str | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    on_stage: Callable[[dict], None] = lambda document: None,
    least_seconds: float = 0.5,
) -> dict:
    """Measure training steps of one shape.

    Args:
        checkpoint: a config.json.
        described_machine: see `model.measured_machine`.
        scratch: an empty working folder.
        layers: of the vision tower and of the decoder.
        stages: names of stages; None: all.
        rounds: trials of each contender.
        tries: of a disturbed trial, see `TrialRunner`.
        torch: the Python interpreter of torch's side; None: torch takes no part.
        device: 'cpu', 'gpu' or None.
        on_progress: called with a line before each trial.
        on_stage: called with the document after each stage.
        least_seconds: of a trial, see `TrialRunner`.
    Returns:
        'model', 'machine', 'stages' (figures of each) and the arguments.
    Raises:
        ValueError: an unknown stage, or a contender that failed.
    """
    names = [stage.name for stage in TRAINING_STAGES]
    unknown = sorted(set(stages or ()) - set(names))
    if unknown:
        raise ValueError(f"stage {unknown[0]!r} does not exist; stages: {', '.join(names)}")
    config = shallow(read_config(checkpoint), layers)
    sizes, costs = part_bytes_of(config), Costs(config)
    document = {
        "benchmark": "train", "model": f"{checkpoint.stem}, {layers} layers", "parameters": sizes["all"] // 4,
        "machine": described_machine, "kernels": "on", "rounds": rounds, "foreign limit": FOREIGN_LIMIT, "stages": [],
    }  # fmt: skip
    folders = {"hf": write_random(scratch / "hf", config)}
    for stage in TRAINING_STAGES:
        if stages and stage.name not in stages:
            continue
        with TrialRunner(  # a stage's processes are its own: another one trains other parameters
            contenders={name: c for name, c in TRAINING_CONTENDERS.items() if torch or c.side == "ours"},
            folders=folders, scratch=scratch, rounds=rounds, tries=tries, least_seconds=least_seconds, device=device,
            environment={KERNELS: "on"}, interpreters={"torch": torch} if torch else {},
            part_bytes={name: _STATES * size for name, size in sizes.items()}, on_progress=on_progress,
        ) as runner:  # fmt: skip
            summary = figures.summary(stage, *runner.run(stage), costs, described_machine["peaks"])
        document["stages"].append(summary)
        on_stage(document)
    return document
