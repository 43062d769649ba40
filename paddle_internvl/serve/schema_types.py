"""Types of request fields: texts, numbers in their range, and `Body`, the base of all JSON objects of requests.

In: JSON values. Out: checked values.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from paddle_internvl.generation.config import MAX_BIAS


def _encodable(text: str) -> str:
    """Refuse lone surrogates, which JSON's escapes can write but UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("no_text", "half a surrogate pair is no text") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1 << 31)]
Tiles = Annotated[int, Field(ge=1, le=1024)]
Second = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Prompt = Annotated[Text, StringConstraints(min_length=1)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]  # a key of JSON
Bias = Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS, allow_inf_nan=False)]
Stop = Annotated[Text, StringConstraints(min_length=1, max_length=256)]


class Body(BaseModel):
    """A JSON object; wrong types are errors, not converted."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
