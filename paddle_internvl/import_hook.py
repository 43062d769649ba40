"""Import hook: functions that run around the first import of a module, whoever imports it.

In: a module's name and two functions. Out: nothing; the module need not be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType


class _ImportHook:
    """Meta path finder of one module. See `install`."""

    def __init__(self, module: str, before: Callable[[], None] | None, after: Callable[[ModuleType], None]):
        self._module, self._before, self._after = module, before, after

    def find_spec(self, name: str, path=None, target=None):
        """The spec that the other finders have, its loader with the two functions; None for other modules."""
        if name != self._module:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                if self._before:
                    self._before()
                execute(module)
                self._after(module)

            spec.loader.exec_module = exec_module
        return spec


def install(module: str, after: Callable[[ModuleType], None], before: Callable[[], None] | None = None) -> None:
    """Run functions around the import of a module; where it is imported already, `after` at once.

    Args:
        module: whole name.
        after: called with the module when it is executed.
        before: called before it is executed.
    """
    if module in sys.modules:
        after(sys.modules[module])
    else:
        sys.meta_path.insert(0, _ImportHook(module, before, after))
