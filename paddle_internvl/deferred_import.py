"""Deferred imports of what Paddle imports for tools that inference does not use: compilers, command lines.

In: nothing. Out: an import of Paddle that takes four fifths of its time; what was left out is imported when asked for.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType

_PACKAGES = ("paddle.utils.cpp_extension",)  # its __init__ needs setuptools and distutils
_COMMANDS = ("httpx._main",)  # httpx's command line, which needs click, rich and pygments; httpx does without it


class _DeferredPackages:
    """Meta path finder of packages whose `__init__` runs at the first request for a name that the package lacks."""

    def find_spec(self, name: str, path=None, target=None):
        """The spec of a package of the table with a loader that puts off its `__init__`; None for other modules."""
        spec = PathFinder.find_spec(name, path, target) if name in _PACKAGES else None
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _put_off(module, execute)
        return spec


def _put_off(module: ModuleType, execute) -> None:
    def missing(name: str):
        if name.startswith("__"):  # Python's own questions, such as `__wrapped__`
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        del module.__getattr__
        execute(module)
        return getattr(module, name)

    module.__getattr__ = missing


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Imports within leave out the packages' `__init__` and the command lines; imported modules stay as they are."""
    finder, hidden = _DeferredPackages(), [name for name in _COMMANDS if name not in sys.modules]
    sys.meta_path.insert(0, finder)
    sys.modules.update(dict.fromkeys(hidden))  # None: an ImportError
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in hidden:
            del sys.modules[name]
