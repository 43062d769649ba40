"""Docstrings as the API reference shows them: this project's way of writing them, turned into Google's.

In: a docstring whose `Args:` may name several arguments a line ("side: S, pixels. min_num, max_num: of crops."), and
the names that are arguments. Out: its sections. Griffe, which reads docstrings for mkdocstrings, wants a line for each
argument and a blank line before each section. Knows no MkDocs but the hook that Griffe calls.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection

import griffe

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Source")
_HEADER = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*(.*)$")
_ENTRY = re.compile(r"(?P<names>[\w*]+(?: \([^)]*\))?(?:, [\w*]+(?: \([^)]*\))?)*): ")
_BESIDE = ("Others",)  # what may stand in place of a name: arguments that are described elsewhere


def sections(docstring: str) -> list[tuple[str, str]]:
    """(header, text) in order; the header of what comes first is ''."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.strip().splitlines():
        match = _HEADER.match(line)
        if match:
            parts.append((match[1], [match[2]] if match[2] else []))
        else:
            parts[-1][1].append(line)
    return [(header, textwrap.dedent("\n".join(lines)).strip()) for header, lines in parts]


def arguments(text: str, names: Collection[str]) -> dict[str, str]:
    """What an `Args:` section says of each argument.

    Args:
        text: the section without its header. names: the arguments there are. What else stands before a colon is text,
            unless it begins a line and is written as a name.
    Returns:
        Name -> description, in order; names that share a description each have it.
    """
    starts = []
    for match in _ENTRY.finditer(text):
        before = text[: match.start()]
        line_begins = not before or before.endswith("\n")
        if not (line_begins or re.search(r"[.;)]\s+$", before)):
            continue
        here = [re.sub(r" \(.*\)", "", name) for name in match["names"].split(", ")]
        if all(name in names or line_begins and (name[0].islower() or "*" in name or name in _BESIDE) for name in here):
            starts.append((match.start(), match.end(), _with_other_names(match["names"], here)))
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    said = [(here, " ".join(text[begin:end].split())) for (_, begin, here), end in zip(starts, ends)]
    return {name: description for here, description in said for name in here}


def _with_other_names(text: str, names: list[str]) -> list[str]:
    """`dtype (or torch_dtype)` names both."""
    return names + re.findall(r"\(or (\w+)\)", text)


def as_google(docstring: str, names: Collection[str]) -> str:
    """The docstring with a line for each argument and a blank line before each section."""
    out = []
    for header, text in sections(docstring):
        if header in ("Args", "Attributes"):
            said = arguments(text, names) if header == "Args" else arguments(text, _all_names(text))
            text = "\n".join(f"{name}: {description}" for name, description in said.items()) if said else text
        if header == "Source":
            out.append(f"Source: {text}")
        elif header == "Returns":
            out.append("Returns:\n" + textwrap.indent(re.sub(r"\s*\n\s*", " ", text), "    "))
        elif header:
            out.append(f"{header}:\n" + textwrap.indent(text, "    "))
        else:
            out.append(text)
    return "\n\n".join(out)


def _all_names(text: str) -> set[str]:
    """An attribute is whatever stands before a colon at the beginning of a line or behind a full stop."""
    return set(re.findall(r"(?:^|[.;]\s+|, )([a-z_]\w*)(?=(?:, \w+)*: )", text, re.M))


class OneLineEach(griffe.Extension):
    """Griffe's hook: every docstring it has loaded goes through `as_google`."""

    def on_object(self, *, obj: griffe.Object, **_more) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is None:
            return
        names = {parameter.name for parameter in obj.parameters} if obj.is_function else set()
        if obj.is_class:
            names = {name for name, member in obj.members.items() if member.is_attribute}
            if "__init__" in obj.members and obj.members["__init__"].is_function:
                names |= {parameter.name for parameter in obj.members["__init__"].parameters}
        obj.docstring.value = as_google(obj.docstring.value, names)
