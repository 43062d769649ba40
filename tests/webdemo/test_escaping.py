"""Escaped text has no HTML tag for another Markdown parser (markdown-it), and no visible change."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from paddle_internvl.webdemo.escaping import escape_html, unescape

READER = MarkdownIt("commonmark", {"html": True})
PIECES = st.sampled_from(
    ["<b>", "</b>", "<img onerror=alert(1)>", "<!--", "-->", "<?x?>", "<", ">", "`", "``", "```", "~~~", "~", "\n",
     "\n\n", "\r", " ", "    ", "\t", "\\", "a", "* ", "1. ", "- ", "> ", "$", "# ", "[", "](", ")", "'", '"', "```py"]
)  # fmt: skip


def tokens(text: str):
    for token in READER.parse(text):
        yield token
        yield from token.children or ()


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
@example("`\n`<b>`")
@example("1. a\n   ```\n<b>")
@example("``` a`b\n<b>")
@example("`a\n\n<b>x`")
@example("\\`<b>`")
@example("~~~\n~~~~\n<b>")
@example("```\n```x\n<b>\n```")
def test_no_html_is_left(text):
    assert not [token for token in tokens(escape_html(text)) if token.type.startswith("html")]
    assert unescape(escape_html(text)) == text.replace("\r\n", "\n").replace("\r", "\n")


def test_blocks_of_code_stay_as_they_are():
    text = "Write\n```html\n<p>x</p>\n```\nbut <p>."
    assert escape_html(text) == text.replace("but <p>", "but <\u2060p>")


def test_unclosed_code_of_a_stream_stays_too():
    assert escape_html("```\n#include <stdio.h>") == "```\n#include <stdio.h>"


def test_mathematics_and_comparisons_stay():
    assert escape_html(r"$a < 1$ and \(x<3\) and **b**") == r"$a < 1$ and \(x<3\) and **b**"
