"""Limits of an engine: batch size, KV cache, and the budgets of a step. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """Limits of an engine.

    Args:
        max_batch_size: sequences admitted at once.
        session_len: limit of prompt and answer together; None: the size of the KV cache.
        cache_tokens: positions of the KV cache, shared by all sequences.
        prefill_chunk: prompt tokens prefilled between two decode steps.
        vision_tiles: tiles that run through the vision tower together.
        max_waiting: requests that may wait for admission; None: no limit.
        reuse: whether the KV blocks of a shared prefix are reused.
        cuda_graph: whether decode steps are captured as CUDA graphs.
    """

    max_batch_size: int
    session_len: int | None
    cache_tokens: int
    prefill_chunk: int = 256
    vision_tiles: int = 16
    max_waiting: int | None = None
    reuse: bool = True
    cuda_graph: bool = False

    def __post_init__(self):
        for name in ("max_batch_size", "cache_tokens", "prefill_chunk", "vision_tiles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
