"""Where an answer ends in its text: at the first of some strings. Knows no tokens and no model."""

from __future__ import annotations

from collections.abc import Sequence


def cut(text: str, stops: Sequence[str], kept: Sequence[str] = ()) -> str | None:
    """`text` up to the first occurrence of any of `stops`, with it if it is one of `kept`; None if there is none."""
    found = [(start, stop) for stop in stops if (start := text.find(stop)) >= 0]
    if not found:
        return None
    start, stop = min(found)
    return text[: start + len(stop)] if stop in kept else text[:start]


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may still become one of `stops`."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if stop.startswith(text[len(text) - length :]):
                longest = length
                break
    return longest
