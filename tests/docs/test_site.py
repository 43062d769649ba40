"""The MkDocs site of docs/: complete in both languages, searchable in Chinese, without requests to other hosts."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.docs.pages import twins
from tests.random_checkpoints import ROOT

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a strict build, made without a network."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refuse(*_args, **_options):
        raise AssertionError("the build opens a connection")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.setattr(socket.socket, "connect", refuse)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_every_page_exists_in_both_languages(site):
    names = {f"{english.stem}.html" for english, _ in twins() if english.name != "README.md"} | {"api.html"}
    for folder in (site, site / "zh"):
        assert names <= {page.name for page in folder.glob("*.html")}
    assert '<html lang="zh"' in (site / "zh/chat.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_other_hosts(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        sources = re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="?(https?:)?//[^"\s>]+', text)
        assert not sources, page
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


def test_chinese_words_are_in_the_search_index(site):
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    words = {
        word
        for entry in index["docs"]
        if entry["location"].startswith("zh/")
        for word in re.split(index["config"]["separator"], entry["title"] + " " + entry["text"])
    }
    assert {"图片", "切片", "量化", "报错"} <= words  # segmented by jieba
    assert any(not entry["location"].startswith("zh/") for entry in index["docs"])


def test_a_page_opened_from_a_folder_has_the_search(site):
    """A browser reads no JSON there and starts no worker: the index is a script, and another one stands in."""
    script = (site / "search/search_index.js").read_text(encoding="utf-8")
    assert json.loads(script.partition("=")[2]) == json.loads((site / "search/search_index.json").read_text("utf-8"))
    for page in ("index.html", "zh/chat.html"):
        (shim,) = re.findall(r'<script src="([^"]*iframe-worker[^"]*)"', (site / page).read_text(encoding="utf-8"))
        assert (site / page).parent.joinpath(shim).is_file()


def test_reference_has_a_row_for_each_argument(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in ("pixel_values", "num_patches_list", "return_history", "tensor_parallel_degree", "max_new_tokens"):
        assert re.search(rf"<td>\s*<code>{name}</code>", text), name
    assert "Args:" not in re.sub(r"<code>.*?</code>", "", text, flags=re.S), "a section that was not parsed"
