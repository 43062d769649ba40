"""Counters and state of an engine, for health checks, metrics and progress lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Totals of an engine since it was constructed.

    Attributes:
        steps: steps.
        prompt_tokens: prompt tokens prefilled.
        reused_tokens: prompt tokens found in the prefix cache.
        generated_tokens: tokens generated.
        vision_tiles: tiles run through the vision tower.
        finished: requests answered.
        cancelled: requests cancelled.
        failed: requests failed.
        failed_in_row: requests failed since the last answered one.
        out_of_memory: requests failed for lack of memory.
    """

    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    vision_tiles: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    failed_in_row: int = 0
    out_of_memory: int = 0


@dataclass
class EngineStats(Counters):
    """Totals of an engine, and its state at the moment.

    Attributes:
        waiting: requests not admitted yet.
        running: sequences in decode.
        prefilling: admitted sequences before decode.
        blocks_used: KV blocks in use.
        blocks_total: KV blocks.
    """

    waiting: int = 0
    running: int = 0
    prefilling: int = 0
    blocks_used: int = 0
    blocks_total: int = 0


@dataclass(frozen=True)
class PromptProgress:
    """Progress of a running request before its first token.

    Attributes:
        tiles: tiles of its pictures.
        tiles_done: tiles with visual tokens.
        tokens: tokens of its prompt.
        tokens_done: tokens prefilled.
    """

    tiles: int
    tiles_done: int
    tokens: int
    tokens_done: int
