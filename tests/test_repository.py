"""What rots unless it is held: the direction of imports, files' sizes and openings, packaging."""

import ast
import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from tests.random_checkpoints import ROOT

# Each layer may import itself and the layers before it (DESIGN.md §2). A name is the longest prefix that fits.
LAYERS = [
    {"convert"},
    {
        "paddle_internvl",
        "paddle_internvl.runtime",
        "paddle_internvl.progress",
        "paddle_internvl.timing",
        "paddle_internvl.configuration",
    },
    {"paddle_internvl.preprocess", "paddle_internvl.prompt", "paddle_internvl.tokenizers"},
    {"paddle_internvl.media", "paddle_internvl.kernels"},
    {"paddle_internvl.ops"},
    {"paddle_internvl.models"},
    {"paddle_internvl.generation"},
    {"paddle_internvl.parallel"},
    {"paddle_internvl.checkpoints", "paddle_internvl.engine", "paddle_internvl.estimation"},
    {"paddle_internvl.chat"},
    {"paddle_internvl.modeling", "paddle_internvl.registration", "paddle_internvl.vl"},
    {"paddle_internvl.verification", "paddle_internvl.scale"},
    {"paddle_internvl.serve"},
    {"paddle_internvl.bench"},
    {"paddle_internvl.webdemo"},
    {"paddle_internvl.cli"},
    {"demo"},
]
# The two references that are not ours, each imported only where torch is asked for: `verify --torch`, `bench model`.
TORCH = {"paddle_internvl.verification.reference", "paddle_internvl.bench.reference"}
SOURCES = sorted(file for part in ("convert", "paddle_internvl", "demo") for file in (ROOT / part).rglob("*.py"))


def layer_of(module: str) -> int:
    fits = [(len(name), i) for i, names in enumerate(LAYERS) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(fits)[1]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            known = {module_name(source) for source in SOURCES}
            for alias in node.names:  # `from package import module` imports the module
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_imports_go_one_way(file):
    mine = layer_of(module_name(file))
    for name in imports(file):
        top = name.partition(".")[0]
        if top in ("convert", "paddle_internvl", "demo"):
            assert layer_of(name) <= mine, f"{module_name(file)} imports {name}, which lies above it"
        if module_name(file).startswith("convert"):
            assert top not in ("paddle", "paddlenlp", "torch"), f"convert imports {top}"
        if module_name(file).startswith("paddle_internvl.prompt"):
            assert top != "paddle"
        if module_name(file) not in TORCH:
            assert top not in ("torch", "transformers"), f"{module_name(file)} imports {top} at run time"


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_files_have_an_opening_and_a_size(file):
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{file} has no opening docstring"
    assert text.count("\n") <= 320, f"{file} has outgrown one subject"
    assert file.stem not in ("utils", "common", "base", "helpers")
    for pattern in (r"\bTODO\b", r"\bFIXME\b", r"except.*:\s*pass\b"):
        assert not re.search(pattern, text), f"{file}: {pattern}"


def test_public_names():
    import paddle_internvl

    for name in paddle_internvl.__all__:
        assert getattr(paddle_internvl, name).__doc__, name
    assert set(paddle_internvl.__all__) <= set(dir(paddle_internvl))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        paddle_internvl.nonsense  # noqa: B018


def test_public_functions_are_documented():
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{file}: {node.name}"


def test_entry_points_import():
    points = [p for p in metadata.distribution("paddle_internvl").entry_points if p.group == "console_scripts"]
    assert [point.name for point in points] == ["paddle-internvl"]
    assert all(callable(point.load()) for point in points)


def test_lock_holds_what_setup_asks_for():
    from packaging.requirements import Requirement

    locked: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line)
            locked.setdefault(requirement.name.lower(), []).append(str(requirement.specifier).removeprefix("=="))
    for text in metadata.requires("paddle_internvl"):
        requirement = Requirement(text)
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": e}) for e in ("cpu", "video", "test", "")
        ):
            continue
        for version in locked[requirement.name.lower()]:
            assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_tiny_configs_name_their_parts():
    for file in (ROOT / "configs").rglob("*.json"):
        config = json.loads(file.read_text())
        assert config["model_type"] == "internvl_chat" and config["llm_config"]["architectures"]
