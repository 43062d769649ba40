"""Request schema: OpenAI's fields and LMDeploy's extensions, validated by pydantic.

In: JSON. Out: typed requests whose numbers are finite and in range. Unknown fields are ignored, as OpenAI's server
does; fields that ask for an unsupported feature are refused by name. Media are URLs only, so that no kind of part can
name a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from paddle_internvl.prompt.tools import parse_calls
from paddle_internvl.serve.schema_types import (
    Bias,
    Body,
    Count,
    Penalty,
    Prompt,
    Second,
    Stop,
    Temperature,
    Text,
    Tiles,
    TokenId,
    Unit,
)
from paddle_internvl.serve.structured import Structured
from paddle_internvl.serve.template_options import Templated

TOOLS = {"tools": ([],), "tool_choice": ("none", "auto")}
# fields of features that are not supported -> values that are accepted, because they ask for nothing
_UNSUPPORTED = {
    **TOOLS,
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    # vLLM's, LMDeploy's and llama.cpp's
    **dict.fromkeys(("grammar", "json_schema", "bad_words", "allowed_token_ids", "logits_processors"), ()),
    **dict.fromkeys(("chat_template", "adapter_name", "prompt_logprobs", "truncate_prompt_tokens"), ()),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
_MAX_STOPS = 16  # OpenAI takes 4
MAX_CALLS, MAX_PARTS = 128, 1024  # of a message
MAX_MESSAGES = 4096  # of a conversation


def refuse_unsupported(body: object, fields: Mapping[str, tuple]) -> object:
    """A request's body, unless a field asks for a feature that is not supported.

    Args:
        body: any JSON value.
        fields: name -> values that are accepted, because they ask for nothing.
    Raises:
        PydanticCustomError: names the field.
    """
    for name, accepted in fields.items() if isinstance(body, dict) else ():
        value = body.get(name)
        if value is not None and value not in accepted:
            way_out = f"use {accepted[0]!r} or leave it out" if accepted else "leave it out"
            raise PydanticCustomError("unsupported_parameter", f"{name} is not supported; {way_out}", {"param": name})
    return body


class StreamOptions(Body):
    """Options of a stream. include_usage: end it with a chunk of the token usage."""

    include_usage: bool | None = None


class Generation(Structured):
    """Generation settings of chat and text completions.

    temperature 0, the default, takes the likeliest token; above 0 samples, with top_k (0 and -1: off), top_p, min_p and
    seed.
    """

    unsupported: ClassVar[Mapping[str, tuple]] = _UNSUPPORTED

    model: Text
    temperature: Temperature | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Unit | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=1024)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=_MAX_STOPS)] | None = None
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body):
        return refuse_unsupported(body, cls.unsupported)

    @model_validator(mode="after")
    def _require_stream(self):
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options needs stream=true", {"param": "stream_options"})
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def num_top_logprobs(self) -> int:
        """Number of top log-probabilities of each token."""
        return 0

    @property
    def wants_logprobs(self) -> bool:
        """Whether the request asks for log-probabilities."""
        return False

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer; None: the server's default."""
        return self.max_tokens


class TextPart(Body):
    """Text of a message."""

    type: Literal["text"]
    text: Text


class _MediaUrl(Body):
    """URL and tile options of a picture or clip. detail: low 6, medium 12, high 24 tiles; auto: the model's."""

    url: Text
    detail: Literal["auto", "low", "medium", "high"] | None = None
    min_dynamic_patch: Tiles | None = None
    max_dynamic_patch: Tiles | None = None
    use_thumbnail: bool | None = None


class ImageUrl(_MediaUrl):
    """A picture: an http(s) or data URL."""


class VideoUrl(_MediaUrl):
    """A clip: an http(s) or data URL. Frame sampling: num_frames (or num_segments), or fps; bound: [start, end] in
    seconds."""

    num_frames: Count | None = None
    num_segments: Count | None = None
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    bound: Annotated[list[Second], Field(min_length=2, max_length=2)] | None = None


class ImagePart(Body):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | Text


class VideoPart(Body):
    """A clip of a message."""

    type: Literal["video_url"]
    video_url: VideoUrl | Text


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Body):
    """A message. An assistant's content may be null. reasoning_content: thoughts of an assistant, in front of its
    content in the prompt. tool_calls: calls of an assistant; the result of each is a message of the role tool."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    reasoning_content: Text | None = None
    tool_calls: Annotated[list[dict], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def _require_content(self):
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("no_content", "content is missing")
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("tool_calls", "tool_calls belong in an assistant's message")
        try:
            parse_calls(self.tool_calls or [], "")
        except ValueError as error:
            raise PydanticCustomError("tool_calls", "{reason}", {"reason": str(error).removeprefix(".")}) from None
        return self

    def plain(self) -> dict:
        """The message as a dict for `prompt.messages.parse_messages`."""
        content = self.content or ""
        if isinstance(content, list):
            content = [part.model_dump(exclude_none=True) for part in content]
        message = {"role": self.role, "content": content, "reasoning_content": self.reasoning_content}
        return {**message, "tool_calls": self.tool_calls} if self.tool_calls else message

    @property
    def characters(self) -> int:
        """Characters of the message's texts and calls."""
        texts = [self.content or ""]
        if isinstance(self.content, list):
            texts = [part.text for part in self.content if isinstance(part, TextPart)]
        return (
            sum(map(len, texts)) + len(self.reasoning_content or "") + sum(len(str(c)) for c in self.tool_calls or ())
        )


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]


class ChatRequest(Templated, Generation):
    """Body of /v1/chat/completions."""

    unsupported: ClassVar[Mapping[str, tuple]] = {k: v for k, v in _UNSUPPORTED.items() if k not in TOOLS}

    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _top_needs_logprobs(self):
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("top_logprobs", "top_logprobs needs logprobs=true", {"param": "top_logprobs"})
        return self

    @property
    def num_top_logprobs(self) -> int:
        """See `Generation`."""
        return self.top_logprobs or 0

    @property
    def wants_logprobs(self) -> bool:
        """See `Generation`."""
        return bool(self.logprobs)

    @property
    def limit(self) -> int | None:
        """See `Generation`; max_tokens is the older name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(Generation):
    """Body of /v1/completions: a text to be continued. logprobs: number of top log-probabilities."""

    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=1)]
    max_tokens: Count | None = 16
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def text(self) -> str:
        """The prompt, which may come as a list of one."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def num_top_logprobs(self) -> int:
        """See `Generation`."""
        return self.logprobs or 0

    @property
    def wants_logprobs(self) -> bool:
        """See `Generation`."""
        return self.logprobs is not None


class CountRequest(Templated):
    """Body of /v1/count_tokens."""

    model: Text | None = None
    messages: Messages


class TokenizeRequest(Templated):
    """Body of vLLM's /tokenize: the text of a completion, or the messages of a chat."""

    model: Text | None = None
    prompt: Prompt | None = None
    messages: Messages | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _require_one(self):
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("prompt", "give either prompt or messages", {"param": "prompt"})
        return self


class DetokenizeRequest(Body):
    """Body of vLLM's /detokenize."""

    model: Text | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1 << 20)]
