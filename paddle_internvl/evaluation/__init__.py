"""Evaluation on the benchmarks of the model cards: readers, prompts, scorers, judges, runs and score tables."""

from importlib import import_module

_EXPORTS = {  # public name -> module; imported at first use
    "BENCHMARKS": "benchmarks",
    "evaluate": "suite",
    "score": "scoring",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
