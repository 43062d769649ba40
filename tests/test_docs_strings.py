"""Docstrings of everything the API reference shows: each argument is told of, and what comes back."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import import_module

import pytest

import paddle_internvl
from docs.building.docstrings import arguments, as_google, sections
from tests.pages import DOCS, read

SHOWN = re.findall(r"^::: ([\w.]+)$", read(DOCS / "api.md"), re.M)
_UNTOLD = ("self", "cls")
_RESULTLESS = ("", "None", None, inspect.Signature.empty)


def _find(path: str):
    """The object of a dotted path, and the class it is a method of (or None)."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"{path} is nowhere")


def _callables():
    """(name, function) of all that is shown: functions, and public methods that classes define themselves."""
    for path in SHOWN:
        found = _find(path)
        if not inspect.isclass(found):
            yield path, found
            continue
        for name, member in vars(found).items():
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member) and not name.startswith("_") and member.__doc__:
                yield f"{path}.{name}", member
    yield "InternVLChatModel.from_pretrained", paddle_internvl.InternVLChatModel.from_pretrained.__func__
    for name in ("save_pretrained", "extract_feature", "forward"):
        yield f"InternVLChatModel.{name}", getattr(paddle_internvl.InternVLChatModel, name)


CALLABLES = dict(_callables())


def _told(function) -> tuple[str, dict[str, str]]:
    """The whole docstring, and what its `Args:` say."""
    text = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    said = dict(sections(text))
    return text, arguments(said.get("Args", ""), parameters)


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_told_of(name):
    function = CALLABLES[name]
    text, told = _told(function)
    assert text, f"{name} has no docstring"
    parameters = inspect.signature(function).parameters
    wanted = [
        parameter
        for parameter in parameters
        if parameter not in _UNTOLD and not (parameters[parameter].kind.name.startswith("VAR") and len(parameters) > 1)
    ]
    elsewhere = "Others" in told or re.search(r"\b[Ss]ee `", text) is not None
    stars = [pattern.replace("*", ".*") for pattern in told if "*" in pattern]
    missing = [
        parameter
        for parameter in wanted
        if parameter not in told and not elsewhere and not any(re.fullmatch(star, parameter) for star in stars)
    ]
    assert not missing, f"{name}: Args say nothing of {', '.join(missing)}"
    unknown = [word for word in told if word.isidentifier() and word not in parameters and word != "Others"]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert not unknown, f"{name}: Args tell of {', '.join(unknown)}, which are no arguments"


@pytest.mark.parametrize("name", CALLABLES)
def test_what_comes_back_is_told(name):
    function = CALLABLES[name]
    if inspect.signature(function).return_annotation in _RESULTLESS:
        source = inspect.getsource(function)
        if not re.search(r"^\s+return \S", source, re.M):
            return
    text = inspect.getdoc(function) or ""
    if not set(inspect.signature(function).parameters) - set(_UNTOLD):
        return  # its one line is what comes back
    assert "Returns" in dict(sections(text)) or re.search(r"\bSee `", text), f"{name} does not say what it returns"


def test_every_field_of_a_dataclass_is_told_of():
    for path in SHOWN:
        found = _find(path)
        if not dataclasses.is_dataclass(found):
            continue
        text = inspect.getdoc(found)
        for field in dataclasses.fields(found):
            assert re.search(rf"\b{field.name}\b", text) or len(dataclasses.fields(found)) <= 5, f"{path}: {field.name}"


def test_public_names_are_shown():
    homes = {name.rpartition(".")[2] for name in SHOWN}
    paddlenlps = {"AutoConfig", "AutoModel", "AutoTokenizer"}
    assert set(paddle_internvl.__all__) - {"IMAGE_TOKEN"} - paddlenlps <= homes


def test_arguments_of_one_line_are_taken_apart():
    text = (
        "side: S, pixels. min_num, max_num: of crops; None: any.\n    dtype (or torch_dtype): of weights.\nIMG_*: so."
    )
    said = arguments(text, ["side", "min_num", "max_num", "dtype", "torch_dtype"])
    assert said == {
        "side": "S, pixels.",
        "min_num": "of crops; None: any.",
        "max_num": "of crops; None: any.",
        "dtype": "of weights.",
        "torch_dtype": "of weights.",
        "IMG_*": "so.",
    }
    ours = "Do it.\n\nArgs:\n    a: one. b: two.\nReturns:\n    Three,\n    in lines.\nSource: here."
    google = as_google(ours, ["a", "b"])
    assert google.split("\n\n") == [
        "Do it.", "Args:\n    a: one.\n    b: two.", "Returns:\n    Three, in lines.", "Source: here.",
    ]  # fmt: skip
