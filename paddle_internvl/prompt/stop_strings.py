"""Stop strings, and marks of thoughts and calls: where a text ends, and how much of it may still become one."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at_stop(text: str, stops: Sequence[str], kept: Sequence[str] = ()) -> str | None:
    """`text` up to its first stop string; None: there is none.

    Args:
        text: the text.
        stops: the stop strings.
        kept: stop strings that stay in the text.
    """
    found = [(start, stop) for stop in stops if (start := text.find(stop)) >= 0]
    if not found:
        return None
    start, stop = min(found)
    return text[: start + len(stop)] if stop in kept else text[:start]


def partial_stop_length(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string begins with."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if stop.startswith(text[len(text) - length :]):
                longest = length
                break
    return longest
