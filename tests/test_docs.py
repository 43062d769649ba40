"""README and docs/: both languages say the same, links and commands hold, and what is made is what is there."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests import pages
from tests.pages import ENGLISH, blocks, commands, twins
from tests.random_checkpoints import ROOT

ALL = [*ENGLISH, *(chinese for _, chinese in twins())]
LANGUAGES = {"python", "bash", "text", "json", "yaml", ""}
each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
each_pair = pytest.mark.parametrize("english, chinese", twins(), ids=lambda page: page.name)


@each_pair
def test_both_languages_have_the_same_structure(english, chinese):
    assert pages.headings(english) == pages.headings(chinese)
    ours, theirs = pages.tables(english), pages.tables(chinese)
    assert [[len(row) for row in table] for table in ours] == [[len(row) for row in table] for table in theirs]


@each_pair
def test_both_languages_have_the_same_blocks(english, chinese):
    ours, theirs = blocks(english), blocks(chinese)
    assert [block.language for block in ours] == [block.language for block in theirs]
    for mine, twin in zip(ours, theirs):
        assert pages.without_comments(mine.text) == pages.without_comments(twin.text), f"{mine} and {twin}"
        assert bool(mine.reason) == bool(twin.reason), f"{mine} and {twin}"


@each_pair
def test_both_languages_have_the_same_figures_and_names(english, chinese):
    for mine, twin in zip(pages.by_heading(english), pages.by_heading(chinese)):
        title = mine.partition("\n")[0]
        assert pages.figures(mine) == pages.figures(twin), title
        assert pages.code_spans(mine) == pages.code_spans(twin), title


@each_pair
def test_languages_lead_to_each_other_from_the_readme(english, chinese):
    if english.name == "README.md":
        assert "](README_zh.md)" in pages.read(english) and "](README.md)" in pages.read(chinese)
    else:
        assert re.search(r"[\u4e00-\u9fff]", pages.read(chinese)), f"{chinese} is not in Chinese"


def test_no_chinese_page_is_left_alone():
    known = {chinese for _, chinese in twins()}
    assert {ROOT / "README_zh.md", *pages.DOCS.glob("*.zh.md")} == known


@each_page
def test_blocks_are_of_known_kinds(page):
    found = blocks(page)
    assert pages.read(page).count("```") == 2 * len(found), "a fence that is indented, or not closed"
    for block in found:
        assert block.language in LANGUAGES, block
        if block.language == "python":
            ast.parse(block.text)


def test_commands_parse():
    """Also of the blocks that are not run."""
    from convert.cli import _parser
    from paddle_internvl.cli.main import build_parser

    targets = set(re.findall(r"^([a-z]+(?:-[a-z]+)*):", pages.read(ROOT / "Makefile"), re.M))
    seen = [(block, words) for page in ENGLISH for block in blocks(page) if block.language == "bash"
            for words in commands(block.text)]  # fmt: skip
    assert len(seen) >= 40
    for block, words in seen:
        words = words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]
        if words[0] == "paddle-internvl":
            build_parser().parse_args(words[1:])
        elif words[:3] == ["python", "-m", "convert"]:
            _parser().parse_args(words[3:])
        elif words[0] == "make":
            assert words[1] in targets, block
        elif words[:3] == ["python", "-m", "paddle.distributed.launch"]:
            program = next(i for i, word in enumerate(words) if word.endswith("paddle-internvl"))
            build_parser().parse_args(words[program + 1 :])
        elif words[:2] == ["python", "-m"]:
            import_module(words[2])
        else:
            assert words[0] in ("pip", "git", "cd", "export", "mkdocs", "pytest", "source"), f"{block}: {words}"


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", pages.read(page)):
        assert (page.parent / target).exists(), f"{page}: {target}"
    for path in re.findall(r"`((?:demo|tests|configs|convert|paddle_internvl|docs)/[\w./-]+)`", pages.prose(page)):
        assert (ROOT / path).exists(), f"{page}: {path}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_family_table_is_that_of_the_configs(language):
    from docs.building import families

    page = pages.read(families.PAGES[language])
    assert families.with_table(page, language) == page, "renew it: python -m docs.building.families"
    assert len(families.rows()) == len(list((ROOT / "configs").glob("*.json"))) == 14
    assert families.table(language) in page


def test_pictures_of_tiles_are_those_of_the_script():
    from docs.building import tiles

    for name, how in tiles.DRAWN.items():
        with Image.open(tiles.FOLDER / f"tiles-{name}.png") as kept:
            drawn = tiles.draw(*how).convert("RGB")
            assert kept.size == drawn.size, "renew them: python -m docs.building.tiles"
            difference = ImageChops.difference(kept.convert("RGB"), drawn)
            assert max(high for _, high in difference.getextrema()) <= 8, "renew them: python -m docs.building.tiles"


SOURCES = [file for folder in ("paddle_internvl", "convert") for file in (ROOT / folder).rglob("*.py")]
PADDLENLP = "paddlenlp.utils.download"  # whose words users meet where AutoModel looks at a folder first


def _texts() -> list[str]:
    """Every text of the sources, … for what is filled in."""
    found = []
    for file in [*SOURCES, Path(find_spec(PADDLENLP).origin)]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w+(?:![rs])?\}", "…", node.value))  # of tables for str.format
    return [text for text in found if len(text.replace("…", "")) >= 12]


def _pattern(text: str) -> re.Pattern:
    return re.compile(".*?".join(map(re.escape, text.split("…"))), re.S)


def errors(page) -> list[str]:
    """The errors that the FAQ quotes; … stands for what differs."""
    return [line[5:-1] for line in pages.read(page).splitlines() if re.fullmatch(r"### `[^`]{12,}`", line)]


def test_quoted_errors_are_those_of_the_sources():
    quoted, texts = errors(pages.DOCS / "faq.md"), _texts()
    assert len(quoted) >= 30 and len(set(quoted)) == len(quoted)
    patterns = [_pattern(text) for text in texts]
    missing = [
        quote
        for quote in quoted
        if not any(pattern.fullmatch(quote) for pattern in patterns)
        and not any(_pattern(quote).fullmatch(text) for text in texts)
    ]
    assert not missing, "no source says so any more"


def test_every_command_has_its_row():
    from paddle_internvl.cli import main

    (commands_table, *_) = pages.tables(pages.DOCS / "command-line.md")
    rows = {row[0].strip("| `") for row in commands_table[2:]}
    assert rows == {*main.COMMANDS, "python -m convert"}, "docs/command-line.md tells of the commands there are"
