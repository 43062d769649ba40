"""PaddleNLP's TrainingArguments of a run: what training supports of them, what it fixes, and the process group."""

from __future__ import annotations

from collections.abc import Mapping

from paddle import distributed
from paddlenlp.trainer import TrainingArguments

from paddle_internvl.estimation.training_plan import STAGES
from paddle_internvl.parallel.gloo_groups import separate_rendezvous
from paddle_internvl.runtime import choose_device
from paddle_internvl.training.reporting import reporters

# Autocast is off, for the model's dtype is chosen at loading; data are skipped by the loader; our own reporting;
# gradients are freed after a step, not filled with zeros.
_FIXED = {
    "bf16": False, "fp16": False, "ignore_data_skip": True, "report_to": [], "disable_tqdm": True,
    "logging_strategy": "no", "evaluation_strategy": "no", "do_eval": False,
    "release_grads": True,
}  # fmt: skip
_OTHER_PARALLELISM = tuple(f"{kind}_parallel_degree" for kind in ("tensor", "pipeline", "sep", "context"))


def trainer_arguments(options: Mapping) -> TrainingArguments:
    """PaddleNLP's arguments of a run; they start the process group of a run on several ranks.

    Args:
        options: arguments by name.
    Raises:
        ValueError: an argument that training does not support.
    """
    require_supported(options, distributed.get_world_size())
    separate_rendezvous()
    return TrainingArguments(**{**options, "device": choose_device(options.get("device")), **_FIXED})


def require_supported(options: Mapping, ranks: int = 1) -> None:
    """Check arguments.

    Args:
        options: arguments by name.
        ranks: number of ranks; on one rank `sharding` has no effect.
    Raises:
        ValueError: an argument that training does not support.
    """
    if not options.get("output_dir"):
        raise ValueError("output_dir is needed: the folder of metrics.jsonl, checkpoints and the trained model")
    if options.get("save_strategy", "steps") == "epoch":
        raise ValueError("save_strategy='epoch' is not supported; give save_strategy steps and save_steps")
    if options.get("fp16"):
        raise ValueError("fp16 is not supported; give bf16 True, or neither for float32")
    for name in _OTHER_PARALLELISM:
        if options.get(name, 1) > 1:
            raise ValueError(f"{name}={options[name]}: training runs data parallel and with sharding")
    if ranks > 1 and str(options.get("sharding", "")) not in STAGES:
        supported = ", ".join(name for name in STAGES if name.startswith("stage"))
        raise ValueError(f"sharding={options['sharding']!r}; supported: {supported}")
    reporters(options.get("report_to"))
