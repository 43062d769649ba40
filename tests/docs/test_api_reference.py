"""The API reference: every public name is listed, and every listed docstring has its arguments and its result."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import import_module

import pytest

import paddle_internvl
from docs.building.docstrings import as_google, entries, sections
from tests.docs.pages import DOCS, read

LISTED = re.findall(r"^::: ([\w.]+)$", read(DOCS / "api.md"), re.M)
PADDLENLPS = {"AutoConfig", "AutoModel", "AutoTokenizer"}


def find(path: str):
    """The object of a dotted path."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"{path} does not exist")


def listed_functions() -> dict:
    """Name -> function of everything that is listed: functions, and public methods that classes define themselves."""
    functions = {}
    for path in LISTED:
        found = find(path)
        if not inspect.isclass(found):
            functions[path] = found
            continue
        for name, member in vars(found).items():
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member) and not name.startswith("_") and member.__doc__:
                functions[f"{path}.{name}"] = member
    return functions


FUNCTIONS = listed_functions()
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def parameters_of(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@each_function
def test_every_argument_is_documented(name):
    text = inspect.getdoc(FUNCTIONS[name])
    documented = entries(dict(sections(text)).get("Args", ""))
    parameters = parameters_of(FUNCTIONS[name])
    if not re.search(r"\b[Ss]ee `", text):  # whose arguments are these
        missing = [p for p in parameters if p not in documented]
        assert len(parameters) <= 1 or not missing, f"{name}: Args lack {', '.join(missing)}"
    if "kwargs" not in parameters:
        unknown = documented.keys() - set(parameters)
        assert not unknown, f"{name}: {', '.join(unknown)} are no arguments"


@each_function
def test_every_result_is_documented(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    returns = re.search(r"^\s+return \S", inspect.getsource(function), re.M)
    if returns and "Args" in dict(sections(text)) and not re.search(r"\b[Ss]ee `", text):
        assert "Returns" in dict(sections(text)), f"{name} does not document its result"


@pytest.mark.parametrize("path", [path for path in LISTED if "__dataclass_fields__" in vars(find(path))])
def test_every_field_of_a_dataclass_is_documented(path):
    text, fields = inspect.getdoc(find(path)), dataclasses.fields(find(path))
    for field in fields:
        assert re.search(rf"\b{field.name}\b", text) or len(fields) <= 5, f"{path}: {field.name}"


def test_every_public_name_is_listed():
    names = {path.rpartition(".")[2] for path in LISTED}
    assert set(paddle_internvl.__all__) - {"IMAGE_TOKEN"} - PADDLENLPS <= names


def test_sections_and_entries_of_a_docstring():
    text = """Do it.

Args:
    side: S, pixels;
        even.
    **options: of `run`.
Returns:
    Three,
    in lines.
Source: here."""
    assert entries(dict(sections(text))["Args"]) == {"side": "S, pixels; even.", "options": "of `run`."}
    assert as_google(text).split("\n\n") == [
        "Do it.", "Args:\n    side: S, pixels;\n        even.\n    **options: of `run`.",
        "Returns:\n    Three, in lines.", "Source: here.",
    ]  # fmt: skip
