"""Engines of the web demo, each loaded on first use: of the model, and of the model with each LoRA adapter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from paddle_internvl.webdemo.engine_answers import EngineAnswers


class EngineHost:
    """Loads and starts the engines for all visitors.

    Args:
        load: makes an `EngineThread` that is not started yet, from the name of an adapter; "": without one.
        name: of the model.
        adapters: names of LoRA adapters, each merged into weights of its own; they take as much memory as the model.
    Attributes:
        name: of the model.
        adapters: names of LoRA adapters.
        answers: what answers the page.
    """

    def __init__(self, load: Callable[[str], object], name: str = "InternVL", adapters: Sequence[str] = ()):
        self.name, self.adapters = name, tuple(adapters)
        self._load, self._engines, self._lock = load, {}, threading.Lock()
        self.answers = EngineAnswers(self)

    @property
    def engine(self):
        """The running `EngineThread` of the model without an adapter."""
        return self.engine_of("")

    def engine_of(self, adapter: str):
        """The running `EngineThread` of an adapter, loaded by the first call.

        Args:
            adapter: of `adapters`, or "".
        Raises:
            ValueError: there is no such adapter.
        """
        if adapter and adapter not in self.adapters:
            raise ValueError(f"there is no adapter {adapter!r}")
        with self._lock:
            if adapter not in self._engines:
                engine = self._load(adapter)
                engine.start()
                self._engines[adapter] = engine
            return self._engines[adapter]

    def close(self) -> None:
        """Close the engines that were loaded."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
