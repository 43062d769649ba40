"""Text of visitors and models as Markdown in which no HTML is left.

In: text. Out: the same with an invisible character behind every `<` that could open a tag; within code it stays as it
is, since there it opens none and may be copied. Markdown and LaTeX are not touched; the browser renders them.
"""

from __future__ import annotations

import re

# The page's sanitizer stands behind this; here it is only about what is seen.
_CODE = re.compile(r"^ {0,3}(?P<fence>`{3,}(?=[^`\n]*$)|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)", re.M | re.S)
_SPAN = re.compile(r"(?<![`\\])(?P<ticks>`+)(?!`)[^`\n]+(?<!`)(?P=ticks)(?!`)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
JOINER = "\u2060"


def shown(text: str) -> str:
    """`text` with its HTML to be read rather than obeyed."""
    return _outside(_CODE, text, lambda part: _outside(_SPAN, part, lambda rest: _TAG.sub(f"<{JOINER}", rest)))


def typed(text: str) -> str:
    """What was given to `shown`, if that was typed on a keyboard."""
    return text.replace(JOINER, "")


def _outside(code: re.Pattern, text: str, change) -> str:
    out, position = [], 0
    for match in code.finditer(text):
        out += [change(text[position : match.start()]), match[0]]
        position = match.end()
    return "".join([*out, change(text[position:])])
