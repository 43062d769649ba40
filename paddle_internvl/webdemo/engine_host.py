"""Engine of the web demo, loaded on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable


class EngineHost:
    """Loads and starts one engine for all visitors.

    Args:
        load: makes an `EngineThread` that is not started yet.
    """

    def __init__(self, load: Callable[[], object]):
        self._load, self._engine, self._lock = load, None, threading.Lock()

    @property
    def engine(self):
        """The running `EngineThread`, loaded by the first access."""
        with self._lock:
            if self._engine is None:
                engine = self._load()
                engine.start()
                self._engine = engine
            return self._engine

    def close(self) -> None:
        """Close the engine if it was loaded."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
