"""Time to first token of `chat --timing`, from the start of the process, by its parts.

In: a `Timing` that began with the command. Out: a line for people, or a dict for `--json`.
"""

from __future__ import annotations

import time

from paddle_internvl.timing import Timing, process_seconds


class FirstToken:
    """Stopwatch of the time to first token, made when the command begins; `record` is called with every piece.

    Args:
        timing: measures from now on.
    """

    def __init__(self, timing: Timing):
        self._timing, self._before = timing, process_seconds() or 0.0
        self._seconds: float | None = None
        self._parts: dict[str, float] = {}

    def record(self) -> None:
        """Stop at the first piece of an answer; later calls change nothing."""
        if self._seconds is None:
            self._seconds = time.monotonic() - self._timing.start
            self._parts = dict(self._timing.parts)

    def document(self) -> dict:
        """{'first_token': seconds since the process was started, 'parts': {name: seconds}}, which add up."""
        if self._seconds is None:
            return {"first_token": None, "parts": {}}
        parts = {"start": self._before, **self._parts}
        parts["other"] = self._seconds + self._before - sum(parts.values())
        return {
            "first_token": round(self._before + self._seconds, 3),
            "parts": {name: round(seconds, 3) for name, seconds in parts.items()},
        }

    def line(self) -> str:
        """`document` as one line."""
        document = self.document()
        if document["first_token"] is None:
            return "timing: the answer is empty"
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in document["parts"].items())
        return f"first token after {document['first_token']:.2f} s: {parts}"
