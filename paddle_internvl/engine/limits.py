"""How much an engine does at a time and holds at once. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """An engine's limits.

    Args:
        max_batch_size: sequences in work at once. session_len: the most tokens of prompt and answer; None: no limit but
            the cache. cache_tokens: positions of the KV cache, shared by all.
        prefill_chunk: prompt tokens between two decode steps. vision_tiles: tiles through the vision tower between
            them. pending_tiles: tiles of admitted requests that may wait for the tower (one request may have more).
        max_waiting: requests that may wait for admission; None: any number. reuse: whether prompts find the KV blocks
            of earlier ones. cuda_graph: whether decode steps are captured, see `decoding`.
    """

    max_batch_size: int
    session_len: int | None
    cache_tokens: int
    prefill_chunk: int = 256
    vision_tiles: int = 16
    pending_tiles: int = 256
    max_waiting: int | None = None
    reuse: bool = True
    cuda_graph: bool = False

    def __post_init__(self):
        for name in ("max_batch_size", "cache_tokens", "prefill_chunk", "vision_tiles", "pending_tiles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
