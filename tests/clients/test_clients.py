"""Clients of OpenAI's API that are no part of the project's environment: LangChain, LiteLLM, Instructor."""

import json
from enum import Enum

import pytest
from pydantic import BaseModel, ConfigDict, Field

pytestmark = pytest.mark.clients
MESSAGES = [{"role": "user", "content": "Which shape?"}]
LIMIT = 900  # of tokens: the bundled model writes many blanks


class Kind(str, Enum):
    """Kinds of shapes."""

    CIRCLE = "circle"
    SQUARE = "square"


class Shape(BaseModel):
    """Notes a shape."""

    model_config = ConfigDict(extra="forbid")  # the bundled model would add fields up to its limit
    kind: Kind
    sides: int = Field(ge=0, le=9)


TOOL = {"type": "function", "function": {"name": "Shape", "parameters": Shape.model_json_schema()}}
NAMED = {"type": "function", "function": {"name": "Shape"}}


def test_langchain(url):
    model = pytest.importorskip("langchain_openai").ChatOpenAI(
        model="tiny", base_url=url, api_key="-", max_tokens=LIMIT, max_retries=0
    )
    assert model.invoke("Hello").content
    assert "".join(chunk.content for chunk in model.stream("Hello")) == model.invoke("Hello").content
    for method in ("json_schema", "function_calling"):
        assert isinstance(model.with_structured_output(Shape, method=method).invoke("Which shape?"), Shape)
    (call,) = model.bind_tools([Shape], tool_choice="Shape").invoke("Which shape?").tool_calls
    assert call["name"] == "Shape" and Shape(**call["args"])


def test_litellm(url):
    litellm = pytest.importorskip("litellm")
    request = {"model": "openai/tiny", "api_base": url, "api_key": "-", "messages": MESSAGES, "max_tokens": LIMIT}
    assert litellm.completion(**request).choices[0].message.content
    answer = litellm.completion(**request, response_format=Shape).choices[0].message.content
    assert Shape(**json.loads(answer))
    choice = litellm.completion(**request, tools=[TOOL], tool_choice=NAMED).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert Shape(**json.loads(choice.message.tool_calls[0].function.arguments))
    chunks = list(litellm.completion(**request, tools=[TOOL], tool_choice=NAMED, stream=True))
    streamed = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0].function
    assert streamed.arguments == choice.message.tool_calls[0].function.arguments


def test_instructor(url):
    instructor = pytest.importorskip("instructor")
    import openai

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="-", max_retries=0), mode=mode)
        request = {"model": "tiny", "messages": MESSAGES, "max_tokens": LIMIT, "max_retries": 1}
        assert isinstance(client.chat.completions.create(response_model=Shape, **request), Shape), mode
