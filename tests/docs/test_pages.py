"""README and docs/: both languages have one structure, links and commands are valid, generated tables are current."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from PIL import Image, ImageChops

from tests.docs import pages
from tests.docs.pages import ENGLISH, blocks, commands, twins
from tests.random_checkpoints import ROOT

ALL = [*ENGLISH, *(chinese for _, chinese in twins())]
LANGUAGES = {"bibtex", "python", "bash", "text", "json", "yaml", ""}
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
def test_languages_link_to_each_other(english, chinese):
    if english.name == "README.md":
        assert "](README_zh.md)" in pages.read(english) and "](README.md)" in pages.read(chinese)
    else:
        assert re.search(r"[\u4e00-\u9fff]", pages.read(chinese)), f"{chinese} is not in Chinese"


def test_every_chinese_page_has_an_english_one():
    expected = {chinese for _, chinese in twins()}
    assert {ROOT / "README_zh.md", *pages.DOCS.glob("*.zh.md")} == expected


@each_page
def test_blocks_have_a_language(page):
    found = blocks(page)
    assert pages.read(page).count("```") == 2 * len(found), "a fence that is indented, or not closed"
    for block in found:
        assert block.language in LANGUAGES, block
        if block.language == "python":
            ast.parse(block.text)


def test_commands_parse():
    """All commands, also of blocks that are not run."""
    from convert.cli import _parser
    from paddle_internvl.cli.main import build_parser

    targets = set(re.findall(r"^([a-z]+(?:-[a-z]+)*):", pages.read(ROOT / "Makefile"), re.M))
    lines = [(block, words) for page in ENGLISH for block in blocks(page) if block.language == "bash"
            for words in commands(block.text)]  # fmt: skip
    assert len(lines) >= 40
    ours, convert = build_parser(), _parser()
    for block, words in lines:
        words = words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]
        if words[0] == "paddle-internvl":
            ours.parse_args(words[1:])
        elif words[:3] == ["python", "-m", "convert"]:
            convert.parse_args(words[3:])
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
def test_links_and_paths_exist(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", pages.read(page)):
        assert (page.parent / target).exists(), f"{page}: {target}"
    for path in re.findall(r"`((?:demo|tests|configs|convert|paddle_internvl|docs)/[\w./-]+)`", pages.prose(page)):
        assert (ROOT / path).exists(), f"{page}: {path}"


# Headings of the page of errors that are no text of our sources: other packages', or with a value of their own.
OTHERS_ERRORS = ("please make sure one of the", "import paddlenlp", "tools is not supported")


def source_texts() -> list[str]:
    """Texts of the sources, with a line break for each value that is put in."""
    files = [file for part in ("convert", "paddle_internvl", "demo") for file in (ROOT / part).rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(pages.read(file)))]
    joined = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return texts + ["\n".join(part.value for part in parts if isinstance(part, ast.Constant)) for parts in joined]


def test_quoted_errors_are_words_of_the_sources():
    texts = "\n".join(source_texts())
    for page in (pages.DOCS / "faq.md", pages.DOCS / "faq.zh.md"):
        quoted = re.findall(r"^### `(.+)`", pages.read(page), re.M)
        assert len(quoted) >= 50
        for error in quoted:
            pieces = [piece.strip(" ;") for piece in error.split("…")]
            missing = [piece for piece in pieces if piece not in texts]
            assert not missing or error.startswith(OTHERS_ERRORS), f"{page}: {missing} of {error}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_family_table_is_current(language):
    from docs.building import families

    page = pages.read(families.PAGES[language])
    assert families.with_table(page, language) == page, "renew it: python -m docs.building.families"
    assert len(families.rows()) == len(list((ROOT / "configs").glob("*.json"))) == 29
    assert families.table(language) in page


def test_pictures_of_tiles_are_current():
    from docs.building import tiles

    for name, arguments in tiles.DRAWN.items():
        with Image.open(tiles.FOLDER / f"tiles-{name}.png") as saved:
            drawn = tiles.draw(*arguments).convert("RGB")
            assert saved.size == drawn.size, "renew them: python -m docs.building.tiles"
            difference = ImageChops.difference(saved.convert("RGB"), drawn)
            assert max(high for _, high in difference.getextrema()) <= 8, "renew them: python -m docs.building.tiles"


def test_weights_of_every_member_are_linked():
    """On both hubs; a member's config has its name in lower case."""
    members = {file.stem for file in (ROOT / "configs").glob("*.json")}
    for page in ("README.md", "README_zh.md"):
        for hub in ("huggingface.co", "modelscope.cn/models"):
            linked = re.findall(rf"\(https://{hub}/OpenGVLab/(InternVL[\w-]+)\)", (ROOT / page).read_text("utf-8"))
            assert {name.lower() for name in linked} == members and len(linked) == len(members)


def test_every_command_has_its_row():
    from paddle_internvl.cli import main

    (commands_table, *_) = pages.tables(pages.DOCS / "command-line.md")
    rows = {row[0].strip("| `") for row in commands_table[2:]}
    assert rows == {*main.COMMANDS, "python -m convert"}, "docs/command-line.md lists other commands"
