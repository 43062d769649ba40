"""Tools over HTTP: by OpenAI's client on the bundled checkpoint, and what a model writes on a stand-in."""

import json
import re

import pytest

from tests.serve.running import QUESTION, events

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "get_time"}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def test_a_conversation_with_tools(engine_client):
    request = {"model": "tiny", "messages": [{"role": "user", "content": "Weather in Rome?"}], "max_tokens": 300}
    choice = engine_client.chat.completions.create(**request, tools=TOOLS, tool_choice=NAMED).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "get_weather" and arguments["city"] in ("Paris", "Rome") and set(arguments) <= {
        "city", "days",
    }  # fmt: skip
    with engine_client.chat.completions.stream(**request, tools=TOOLS, tool_choice=NAMED) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    assert streamed.finish_reason == "tool_calls"
    request["messages"] += [choice.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    required = engine_client.chat.completions.create(
        **request, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=1.5, n=2, seed=1
    )
    for choice in required.choices:
        (call,) = choice.message.tool_calls
        assert call.function.name in ("get_weather", "get_time") and isinstance(
            json.loads(call.function.arguments), dict
        )
    free = engine_client.chat.completions.create(**request).choices[0]
    assert free.message.content and not free.message.tool_calls  # the history has calls, the request no tools
    auto = engine_client.chat.completions.create(**request, tools=TOOLS).choices[0]
    assert auto.message.content or auto.message.tool_calls


def test_whole_and_streamed(serve):
    server = serve({"text": f"I look.\n{CALL}\n{CALL}"})
    choice = server.ask(tools=TOOLS, logprobs=True).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "I look."
    calls = choice["message"]["tool_calls"]
    function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert [(call["type"], call["function"]) for call in calls] == [("function", function)] * 2
    assert calls[0]["id"] != calls[1]["id"] and calls[0]["id"].startswith("call_")

    *chunks, done = events(server.ask(tools=TOOLS, stream=True))
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(c["delta"].get("content") or "" for c in choices) == "I look."
    deltas = [delta for c in choices for delta in c["delta"].get("tool_calls", ())]
    assert len(deltas) > 8 and [delta["index"] for delta in deltas] == sorted(delta["index"] for delta in deltas)
    for index in (0, 1):
        first, *rest = [delta for delta in deltas if delta["index"] == index]
        assert first["function"]["name"] == "get_weather" and first["id"].startswith("call_") and len(rest) > 3
        assert "".join(delta["function"]["arguments"] for delta in (first, *rest)) == '{"city": "Rome"}'
    assert choices[-1]["finish_reason"] == "tool_calls" and done == "[DONE]"

    cut = server.ask(tools=TOOLS, max_tokens=30).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    for request in ({}, {"tools": TOOLS, "tool_choice": "none"}):  # the same prompt, and no calls
        message = server.ask(**request).json()["choices"][0]["message"]
        assert message["content"] == f"I look.\n{CALL}\n{CALL}" and "tool_calls" not in message
    assert server.engine.asked[-1][0].ids == server.engine.asked[-2][0].ids


def test_prompts_are_counted_with_their_tools(serve):
    server = serve()
    assert server.ask(tools=TOOLS).status_code == 200
    prompt = server.engine.asked[-1][0]
    text = server.engine.tokenizer.decode(prompt.ids)
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather"' in text
    body = {"messages": QUESTION["messages"], "tools": TOOLS}
    assert server.ask("/v1/count_tokens", body).json()["total"] == len(prompt.ids)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, r"tools\[0\].function.name is 1 to 64"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice is 'none', 'auto', 'required' or"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format goes with no tools"),
        (
            {"tools": TOOLS, "tool_choice": "required", "chat_template_kwargs": {"thinking": True}},
            "a tool_choice that requires a call goes with no thinking",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "b", "parameters": {"properties": {
                "x": {"type": "string", "pattern": "(a"}}}}}]},
            "tools: parameters of 'b': .*is not supported",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "a"}}]},
                          *QUESTION["messages"]]},
            r"messages.0: tool_calls\[0\].function.arguments is a JSON object",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(serve, fields, message):
    response = serve().ask(**fields)

    assert response.status_code == 400 and re.search(message, response.json()["error"]["message"]), response.text
