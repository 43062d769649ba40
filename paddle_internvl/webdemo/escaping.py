"""Text of visitors and models as Markdown in which no HTML is left.

In: text. Out: the same with an invisible character behind every `<` that could open a tag; in a fenced block it stays
as it is, since there it opens none and may be copied. Markdown and LaTeX are not touched; the browser renders them.
"""

from __future__ import annotations

import re

# Fences at the beginning of a line only: whether an indented one is a fence depends on what stands before it. The
# page's sanitizer stands behind this; here it is about what is seen.
_FENCED = re.compile(
    r"^(?P<ticks>`{3,})[^`\n]*$(?:.*?^ {0,3}(?P=ticks)`*[ \t]*$|.*)"
    r"|^(?P<tildes>~{3,})[^\n]*$(?:.*?^ {0,3}(?P=tildes)~*[ \t]*$|.*)",
    re.M | re.S,
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_JOINER = "\u2060"


def shown(text: str) -> str:
    """`text` with its HTML to be read rather than obeyed."""
    out, position = [], 0
    text = re.sub(r"\r\n?", "\n", text)
    for block in _FENCED.finditer(text):
        out += [_TAG.sub(f"<{_JOINER}", text[position : block.start()]), block[0]]
        position = block.end()
    return "".join([*out, _TAG.sub(f"<{_JOINER}", text[position:])])


def typed(text: str) -> str:
    """What was given to `shown`, if that was typed on a keyboard."""
    return text.replace(_JOINER, "")
