"""Response formats: the `response_format` of OpenAI and LMDeploy, and vLLM's `structured_outputs` and `guided_*`.

In: settings under any of these names. Out: a `ResponseFormat`, with limits of size and depth checked; whether a format
can be compiled is found by `compiler`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

_OBJECT = '{"type": "object"}'
_MAX_CHARACTERS = {"json_schema": 1 << 18, "regex": 1 << 14, "choice": 1 << 17, "grammar": 1 << 16, "tools": 1 << 18}
_MAX_DEPTH = 64
_MAX_VALUES = 4096  # of a schema: objects, lists, texts and numbers
_MAX_MULTIPLE = 4096  # least common multiple of every multipleOf: a matcher has a state for each remainder
_TYPES = {  # type of response_format -> the keys beside "type"
    "text": (),
    "json_object": (),
    "json_schema": ("json_schema",),
    "regex_schema": ("regex_schema",),
}
_STRUCTURED = ("json", "json_object", "regex", "choice", "grammar")  # fields of vLLM's structured_outputs
GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "regex_schema")
NAMES = ("response_format", "structured_outputs", *GUIDED)


@dataclass(frozen=True)
class ResponseFormat:
    """What an answer has to match.

    Attributes:
        kind: 'json_schema', 'regex', 'choice', 'grammar' (Lark) or 'tools' (a grammar of tool calls).
        source: JSON of the schema, JSON list of the choices, or the text of the expression or grammar.
    """

    kind: str
    source: str

    def __post_init__(self):
        limit = _MAX_CHARACTERS[self.kind]
        if not self.source or len(self.source) > limit:
            raise ValueError(f"response_format: a {self.kind} has 1 to {limit} characters, not {len(self.source)}")


def pop_response_format(settings: MutableMapping) -> ResponseFormat | None:
    """Remove the settings of `NAMES`; returns the format that they ask for, or None.

    Raises:
        ValueError: a format that is not supported, or several of them.
    """
    fields = {name: value for name in NAMES if (value := settings.pop(name, None)) is not None}
    formats = {name: found for name, value in fields.items() if (found := _of_field(name, value)) is not None}
    if len(formats) > 1:
        raise ValueError(f"{' and '.join(formats)} exclude each other; use one of them")
    return next(iter(formats.values()), None)


def _of_field(name: str, value) -> ResponseFormat | None:
    if isinstance(value, ResponseFormat):
        return value
    if name == "response_format":
        return _of_response_format(value)
    if name == "structured_outputs":
        return _of_structured_outputs(value)
    return _of_kind(name.removeprefix("guided_").removesuffix("_schema"), name, value)


def _of_response_format(value) -> ResponseFormat | None:
    if _is_model_class(value):
        return _of_kind("json", "response_format", value)
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(
            f"response_format={_short(value)} is not supported; its type is text, json_object, json_schema (with "
            '{"json_schema": {"schema": ...}}) or regex_schema'
        )
    for key, content in value.items():
        if key != "type" and key not in _TYPES[kind] and content is not None:
            raise ValueError(f"response_format has {key!r}, which type {kind!r} does not take")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat("json_schema", _OBJECT)
    content = value.get(kind)
    if kind == "regex_schema":
        return _of_kind("regex", "response_format.regex_schema", content)
    if not isinstance(content, Mapping) or content.get("schema") is None:
        raise ValueError("response_format.json_schema has no 'schema'")
    return _of_kind("json", "response_format.json_schema.schema", content["schema"])


def _of_structured_outputs(value) -> ResponseFormat | None:
    if not isinstance(value, Mapping):
        raise ValueError(f"structured_outputs={_short(value)} is no object")
    present = {key: content for key, content in value.items() if content is not None and content is not False}
    for key in present:
        if key not in _STRUCTURED:
            raise ValueError(f"structured_outputs has {key!r}, which is not supported; use {', '.join(_STRUCTURED)}")
    if len(present) != 1:
        raise ValueError(f"structured_outputs takes one of {', '.join(_STRUCTURED)}, not {len(present)}")
    ((kind, content),) = present.items()
    return _of_kind(kind, f"structured_outputs.{kind}", content)


def _of_kind(kind: str, name: str, value) -> ResponseFormat:
    """The format of one field: its kind, its name for errors, and its value."""
    if kind == "json_object":
        return ResponseFormat("json_schema", _OBJECT)
    if kind == "json":
        return ResponseFormat("json_schema", schema_text(name, value))
    if kind == "choice":
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(c, str) and c for c in value):
            raise ValueError(f"{name} is a list of texts of at least one character")
        return ResponseFormat("choice", json.dumps(list(value)))
    if not isinstance(value, str):
        raise ValueError(f"{name} is a text, not {type(value).__name__}")
    if kind == "grammar" and "multipleOf" in value:  # of an embedded schema, whose size is not checked
        raise ValueError(f"{name}: multipleOf is not supported in a grammar; use a JSON Schema")
    return ResponseFormat(kind, value)


def schema_text(name: str, schema) -> str:
    """JSON text of a schema, given as a dict, a bool, a JSON text or a pydantic class."""
    if _is_model_class(schema):
        schema = schema.model_json_schema()
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        if isinstance(schema, (Mapping, bool)):
            text = json.dumps(schema, allow_nan=False)
    except RecursionError:
        raise ValueError(f"{name} is nested deeper than {_MAX_DEPTH} levels") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from None
    else:
        if isinstance(schema, (Mapping, bool)):
            _require_size(name, schema)
            return text
    raise ValueError(f"{name} is a JSON Schema (an object), not {_short(schema)}")


def _require_size(name: str, schema) -> None:
    """Refuse schemas that are deep or large, and what makes a matcher of a small schema large."""
    level, count, depth, multiple = [schema], 0, 0, 1
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > _MAX_DEPTH:
            raise ValueError(f"{name} is nested deeper than {_MAX_DEPTH} levels")
        if count > _MAX_VALUES:
            raise ValueError(f"{name} has more than {_MAX_VALUES} values")
        for value in level:
            if isinstance(value, Mapping):
                multiple = math.lcm(multiple, _multiple(value.get("multipleOf")))
        if multiple > _MAX_MULTIPLE:
            raise ValueError(f"{name}: multipleOf has too many digits; together at most {_MAX_MULTIPLE} is supported")
        level = [item for value in level for item in _items(value)]


def _items(value) -> list:
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else []


def _multiple(value) -> int:
    """A multipleOf in units of its last digit; 1 where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return 1
    digits = str(value) if isinstance(value, int) else format(value, ".12f").rstrip("0")
    return int(digits.replace(".", "").lstrip("-")) or 1


def _is_model_class(value) -> bool:
    """Whether a value is a pydantic class."""
    return isinstance(value, type) and hasattr(value, "model_json_schema")


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
