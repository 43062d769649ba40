"""Response formats of requests: OpenAI's and LMDeploy's `response_format`, vLLM's `structured_outputs` and `guided_*`.

In: fields of a body. Out: a `ResponseFormat`, or a validation error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from paddle_internvl.generation.constraints.formats import NAMES, ResponseFormat, pop_response_format
from paddle_internvl.serve.schema_types import Body, Text


class Structured(Body):
    """A request whose answer may have to match a format."""

    response_format: dict | None = None
    structured_outputs: dict | None = None
    guided_json: dict | Text | None = None
    guided_regex: Text | None = None
    guided_choice: list[Text] | None = None
    guided_grammar: Text | None = None
    regex_schema: Text | None = None

    @model_validator(mode="after")
    def _require_format(self):
        require_format({name: getattr(self, name) for name in NAMES})
        return self

    @property
    def answer_format(self) -> ResponseFormat | None:
        """The format of the answer."""
        return pop_response_format({name: getattr(self, name) for name in NAMES})


def require_format(fields: dict) -> None:
    """Check the fields of `NAMES`.

    Raises:
        PydanticCustomError: names the field.
    """
    name = next((name for name, value in fields.items() if value is not None), None)
    try:
        pop_response_format(fields)
    except ValueError as error:
        raise PydanticCustomError("response_format", "{reason}", {"param": name, "reason": str(error)}) from None


def chat_format(text: Mapping | None) -> dict | None:
    """`response_format` of a chat completion for the `text` of OpenAI's Responses API, whose format is flat."""
    flat = (text or {}).get("format")
    if not isinstance(flat, Mapping) or flat.get("type") != "json_schema":
        return flat
    return {"type": "json_schema", "json_schema": {key: value for key, value in flat.items() if key != "type"}}
