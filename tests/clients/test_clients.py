"""Clients of OpenAI's API in an environment of their own: OpenAI's, LangChain, LiteLLM, Instructor."""

import asyncio
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


def test_openai(url):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=url, api_key="-", max_retries=0)
    tool, chat = openai.pydantic_function_tool(Shape), {"model": "tiny", "messages": MESSAGES, "max_tokens": LIMIT}
    parsed = client.chat.completions.parse(**chat, response_format=Shape).choices[0].message.parsed
    assert isinstance(parsed, Shape)
    with client.chat.completions.stream(**chat, tools=[tool], tool_choice=NAMED) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert len(deltas) > 3 and isinstance(call.function.parsed_arguments, Shape)

    request = {"model": "tiny", "input": MESSAGES, "max_output_tokens": LIMIT}
    assert client.responses.parse(**request, text_format=Shape).output_parsed == parsed
    named = {"tools": [tool], "tool_choice": {"type": "function", "name": "Shape"}}
    response = client.responses.parse(**request, **named)
    shape = response.output[0].parsed_arguments  # the client writes the tool's keys in another order than for a chat
    assert isinstance(shape, Shape)
    with client.responses.stream(**request, **named) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        assert stream.get_final_response().output[0].arguments == "".join(deltas) == response.output[0].arguments
    result = {"type": "function_call_output", "call_id": response.output[0].call_id, "output": "noted"}
    history = [*MESSAGES, response.output[0].to_dict(), result]
    assert client.responses.create(**request | {"input": history}).output_text

    async def calls_at_once() -> list:
        async with openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0) as parallel:
            calls = [parallel.responses.parse(**request, **named) for _ in range(3)]
            return [response.output[0].parsed_arguments for response in await asyncio.gather(*calls)]

    assert asyncio.run(calls_at_once()) == [shape] * 3


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
    by_responses = model.model_copy(update={"use_responses_api": True})
    (call,) = by_responses.bind_tools([Shape], tool_choice="Shape").invoke("Which shape?").tool_calls
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
