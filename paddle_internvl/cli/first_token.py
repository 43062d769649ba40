"""What `chat --timing` reports: the time from the start of the process to an answer's first piece, by its parts.

In: a `Timing` that was begun with the command. Out: a line for people, or a dict for `--json`.
"""

from __future__ import annotations

import time

from paddle_internvl.timing import Timing, process_seconds


class FirstToken:
    """Made when the command begins; `seen` is called with every piece of the answers.

    Args:
        timing: that measures from now on.
    """

    def __init__(self, timing: Timing):
        self._timing, self._before = timing, process_seconds() or 0.0
        self._seconds: float | None = None
        self._parts: dict[str, float] = {}

    def seen(self) -> None:
        """A piece has come; only the first counts."""
        if self._seconds is None:
            self._seconds = time.monotonic() - self._timing.begun
            self._parts = dict(self._timing.parts)

    def document(self) -> dict:
        """{'first_token': seconds since the process was started, 'parts': those of what it was spent on}."""
        if self._seconds is None:
            return {"first_token": None, "parts": {}}
        parts = {"start": self._before, **self._parts}
        parts["other"] = self._seconds + self._before - sum(parts.values())
        return {
            "first_token": round(self._before + self._seconds, 3),
            "parts": {name: round(seconds, 3) for name, seconds in parts.items()},
        }

    def line(self) -> str:
        """The same in words."""
        document = self.document()
        if document["first_token"] is None:
            return "timing: the answer is empty"
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in document["parts"].items())
        return f"first token after {document['first_token']:.2f} s: {parts}"
