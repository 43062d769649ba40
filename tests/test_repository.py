"""Rules of the repository: direction of imports, sizes and docstrings of files, words of names, packaging."""

import ast
import io
import json
import re
import tokenize
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest

from tests.random_checkpoints import ROOT

# Each layer may import itself and the layers before it. A module belongs to its longest prefix.
LAYERS = [
    {"convert"},
    {
        "paddle_internvl",
        "paddle_internvl.runtime",
        "paddle_internvl.jsonl",
        "paddle_internvl.plotting",
        "paddle_internvl.progress",
        "paddle_internvl.timing",
        "paddle_internvl.configuration",
    },
    {"paddle_internvl.preprocess", "paddle_internvl.prompt", "paddle_internvl.tokenizers"},
    {"paddle_internvl.media", "paddle_internvl.kernels"},
    {"paddle_internvl.ops"},
    {"paddle_internvl.models"},
    {"paddle_internvl.generation", "paddle_internvl.training.losses"},
    {"paddle_internvl.parallel"},
    {"paddle_internvl.checkpoints", "paddle_internvl.engine", "paddle_internvl.estimation"},
    {"paddle_internvl.chat"},
    {"paddle_internvl.modeling", "paddle_internvl.registration", "paddle_internvl.vl"},
    {"paddle_internvl.training", "paddle_internvl.evaluation", "paddle_internvl.serve", "paddle_internvl.scale"},
    {
        "paddle_internvl.curation",
        "paddle_internvl.webdemo",
        "paddle_internvl.bench",
        "paddle_internvl.verification",
    },
    {"paddle_internvl.cli", "paddle_internvl.__main__"},
    {"demo"},
]
# The references of `verify --torch`, `bench model` and `bench train` are the only modules that import torch.
TORCH = {
    "paddle_internvl.verification.reference", "paddle_internvl.bench.reference",
    "paddle_internvl.bench.reference_training",
}  # fmt: skip
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Methods whose class or protocol documents them: a layer's forward, a command's two functions.
DOCUMENTED_ELSEWHERE = {"forward", "add_arguments", "run", "main"}
# Undocumented public definitions; this table only shrinks.
UNDOCUMENTED = {
    "convert/quant_config.py": 1,
    "convert/quantize_rule.py": 5,
    "convert/rules.py": 9,
    "convert/safetensors_io.py": 1,
    "convert/shard_writer.py": 1,
    "paddle_internvl/configuration/chat.py": 1,
    "paddle_internvl/engine/sequence.py": 1,
    "paddle_internvl/kernels/building.py": 1,
    "paddle_internvl/modeling.py": 2,
    "paddle_internvl/models/decoder.py": 1,
    "paddle_internvl/models/internvl.py": 1,
    "paddle_internvl/ops/attention.py": 1,
    "paddle_internvl/ops/norms.py": 1,
    "paddle_internvl/ops/rope.py": 1,
    "paddle_internvl/serve/connections.py": 3,
    "paddle_internvl/serve/server.py": 1,
    "paddle_internvl/tokenizers/byte_level_bpe.py": 1,
    "paddle_internvl/tokenizers/internlm2.py": 2,
    "paddle_internvl/tokenizers/llama.py": 1,
    "paddle_internvl/tokenizers/sentencepiece.py": 1,
}
# Names in which a reader finds no term.
VAGUE = {
    "told", "tell", "tells", "says", "said", "known", "knows", "speak", "see", "seen", "how", "most", "given", "about",
    "own", "what", "asked", "wanted", "hurry",
}  # fmt: skip
SOURCES = sorted(file for part in ("convert", "paddle_internvl", "demo") for file in (ROOT / part).rglob("*.py"))


def layer_of(module: str) -> int:
    fits = [(len(name), i) for i, names in enumerate(LAYERS) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(fits)[1]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(source) for source in SOURCES}


def imports(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:  # `from package import module` imports the module
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_imports_go_one_way(file):
    mine = layer_of(module_name(file))
    for name in imports(file):
        top = name.partition(".")[0]
        if top in ("convert", "paddle_internvl", "demo"):
            assert layer_of(name) <= mine, f"{module_name(file)} imports {name}, a layer above"
        if module_name(file).startswith("convert"):
            assert top not in ("paddle", "paddlenlp", "torch"), f"convert imports {top}"
        if module_name(file).startswith("paddle_internvl.prompt"):
            assert top != "paddle"
        if module_name(file) not in TORCH:
            assert top not in ("torch", "transformers"), f"{module_name(file)} imports {top} at run time"


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_files_have_a_docstring_and_a_size(file):
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{file} has no docstring"
    assert text.count("\n") <= 320, f"{file} is too long for one subject"
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


def public_definitions(node: ast.AST, prefix: str = ""):
    """(dotted name, node) of public classes, functions and methods."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINITIONS) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("file", SOURCES, ids=module_name)
def test_public_definitions_are_documented(file):
    missing = {
        name
        for name, node in public_definitions(ast.parse(file.read_text(encoding="utf-8")))
        if not ast.get_docstring(node) and name.rpartition(".")[2] not in DOCUMENTED_ELSEWHERE
    }
    relative = file.relative_to(ROOT).as_posix()
    assert len(missing) <= UNDOCUMENTED.get(relative, 0), f"{relative}: {', '.join(sorted(missing))}"


def test_names_are_the_field_s_words():
    found = Counter()
    for file in SOURCES:
        if file.is_relative_to(ROOT / "demo"):
            continue
        for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.NAME:
                found.update(VAGUE & set(token.string.lower().split("_")))
    assert found.total() <= 15, found  # tighten it when names go


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
    for file in [*(ROOT / "configs").glob("*.json"), *(ROOT / "configs/tiny").glob("*.json")]:
        config = json.loads(file.read_text())
        assert config["model_type"] == "internvl_chat" and config["llm_config"]["architectures"]
