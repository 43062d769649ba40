"""Learning-rate schedules with warm-up, as factors of the highest rate."""

from __future__ import annotations

import math

SCHEDULES = {  # lr_scheduler_type -> factor at a share in [0, 1] of the steps after warm-up
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
    "linear": lambda share: 1.0 - share,
    "constant": lambda share: 1.0,
    "constant_with_warmup": lambda share: 1.0,
}


def warmup_steps(max_steps: int, warmup_ratio: float = 0.0, steps: int = 0) -> int:
    """Number of warm-up steps: `steps` if it is above 0, else a ratio of all steps, rounded up."""
    return steps if steps > 0 else math.ceil(max_steps * warmup_ratio)


def learning_rate_factor(lr_scheduler_type: str, step: int, warmup: int, max_steps: int) -> float:
    """Factor of the learning rate at an optimiser step.

    Args:
        lr_scheduler_type: a key of `SCHEDULES`.
        step: from 0; with warm-up the first factor is 0.
        warmup: number of warm-up steps, over which the factor grows linearly; 'constant' has none.
        max_steps: number of optimiser steps of the run.
    Returns:
        A factor in [0, 1].
    Raises:
        ValueError: an unknown schedule.
    Source: transformers 4.37.2 `optimization.py`, `get_cosine_schedule_with_warmup` and its neighbours.
    """
    if lr_scheduler_type not in SCHEDULES:
        raise ValueError(f"lr_scheduler_type={lr_scheduler_type!r}; supported: {', '.join(SCHEDULES)}")
    if step < warmup and lr_scheduler_type != "constant":
        return step / max(1, warmup)
    share = (step - warmup) / max(1, max_steps - warmup)
    return max(0.0, SCHEDULES[lr_scheduler_type](min(share, 1.0)))
