"""Escaping of HTML in Markdown text of visitors and models.

In: text. Out: the text with an invisible character behind every `<` that could open a tag. Fenced code blocks, in which
no tag opens, stay as they are, so that they can be copied. Markdown and LaTeX are not changed.
"""

from __future__ import annotations

import re

# Fences at the beginning of a line only: whether an indented fence is one depends on the lines before it. The page
# sanitizes HTML in any case; escaping makes the tags visible.
_FENCED = re.compile(
    r"^(?P<ticks>`{3,})[^`\n]*$(?:.*?^ {0,3}(?P=ticks)`*[ \t]*$|.*)"
    r"|^(?P<tildes>~{3,})[^\n]*$(?:.*?^ {0,3}(?P=tildes)~*[ \t]*$|.*)",
    re.M | re.S,
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_JOINER = "\u2060"


def escape_html(text: str) -> str:
    """`text` whose HTML tags are shown as text."""
    out, position = [], 0
    text = re.sub(r"\r\n?", "\n", text)
    for block in _FENCED.finditer(text):
        out += [_TAG.sub(f"<{_JOINER}", text[position : block.start()]), block[0]]
        position = block.end()
    return "".join([*out, _TAG.sub(f"<{_JOINER}", text[position:])])


def unescape(text: str) -> str:
    """The argument of `escape_html`, with line ends as newlines."""
    return text.replace(_JOINER, "")
