"""Docstrings of the API reference in Griffe's form: Google style with a blank line before each section.

In: a docstring of this project, whose sections follow without a blank line. Out: the same in Griffe's form.
"""

from __future__ import annotations

import re
import textwrap

import griffe

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Source")
_HEADER = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*(.*)$")


def sections(docstring: str) -> list[tuple[str, str]]:
    """Split a docstring into (header, text) in order; the header of the text before the first section is ''."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.strip().splitlines():
        match = _HEADER.match(line)
        if match:
            parts.append((match[1], [match[2]] if match[2] else []))
        else:
            parts[-1][1].append(line)
    return [(header, textwrap.dedent("\n".join(lines)).strip()) for header, lines in parts]


def entries(text: str) -> dict[str, str]:
    """Name -> description of an `Args:` or `Attributes:` section, which has one entry a line.

    Args:
        text: the section without its header; lines that continue an entry are indented.
    """
    found = re.findall(r"^(\*{0,2}\w+)(?: \([^)]*\))?: *(.*(?:\n[ ]+.*)*)", text, re.M)
    return {name.lstrip("*"): " ".join(description.split()) for name, description in found}


def as_google(docstring: str) -> str:
    """The docstring with a blank line before each section."""
    blocks = []
    for header, text in sections(docstring):
        if header == "Returns":  # else Griffe reads each line as another value
            text = re.sub(r"\s*\n\s*", " ", text)
        if header == "Source":  # no section of Google's
            blocks.append(f"Source: {text}")
        else:
            blocks.append(f"{header}:\n{textwrap.indent(text, '    ')}" if header else text)
    return "\n\n".join(blocks)


class GoogleStyle(griffe.Extension):
    """Griffe's hook: rewrites every docstring by `as_google`."""

    def on_object(self, *, obj: griffe.Object, **_options) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_google(obj.docstring.value)
