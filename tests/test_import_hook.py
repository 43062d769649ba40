"""Import hook: two functions run around the first import of a module."""

import importlib
import sys

import pytest

from paddle_internvl import import_hook


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that is not imported yet."""
    (tmp_path / "hooked_module.py").write_text("import calls\ncalls.LIST.append('module')\n")
    (tmp_path / "calls.py").write_text("LIST = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield "hooked_module"
    for name in ("hooked_module", "calls"):
        sys.modules.pop(name, None)


def test_functions_run_around_the_first_import(module):
    calls = importlib.import_module("calls").LIST
    import_hook.install(module, before=lambda: calls.append("before"), after=lambda m: calls.append(m.__name__))
    assert calls == []
    importlib.import_module(module)
    importlib.import_module(module)
    assert calls == ["before", "module", "hooked_module"]


def test_an_imported_module_is_not_waited_for(module):
    imported, calls = importlib.import_module(module), []
    import_hook.install(module, after=calls.append)
    assert calls == [imported]


def test_a_module_that_is_not_installed():
    import_hook.install("no_such_module_anywhere", after=pytest.fail)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_anywhere")
