"""Tools and thoughts in OpenAI's Responses API: objects and events by the client's own types, prompts by the chat's."""

import json

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.serve.test_tools import CALL, PARAMETERS, TOOLS

FLAT = [{"type": "function", **tool["function"]} for tool in TOOLS]
NAMED = {"type": "function", "name": "get_weather"}
PATH, BODY = "/v1/responses", {"model": "tiny", "input": "Weather in Rome?"}
EVENT = TypeAdapter(ResponseStreamEvent)
THINKING = {"reasoning": {"effort": "medium"}}


def streamed(response) -> list[dict]:
    """The events of a stream, which are those of OpenAI's client."""
    assert response.status_code == 200, response.text
    events = [json.loads(line.split("data: ", 1)[1]) for line in response.text.split("\n\n") if line]
    for number, event in enumerate(events):
        assert EVENT.validate_python(event).type == event["type"] and event["sequence_number"] == number
    return events


def plain(item: dict) -> dict:
    """An item without its ids."""
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


def test_thoughts_text_and_calls_are_items(serve):
    server = serve({"text": f"<think>two cities</think>\nI look.\n{CALL}\n{CALL}"})
    request = {**BODY, **THINKING, "tools": FLAT, "tool_choice": "auto"}
    whole = server.ask(PATH, request).json()
    Response.model_validate(whole)
    thoughts, message, *calls = whole["output"]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "two cities"}] and thoughts["summary"] == []
    assert message["content"][0]["text"] == "I look." and whole["status"] == "completed"
    assert [(call["name"], call["arguments"]) for call in calls] == [("get_weather", '{"city": "Rome"}')] * 2
    assert len({call["call_id"] for call in calls}) == len({item["id"] for item in whole["output"]}) - 2 == 2
    assert whole["tools"][0]["parameters"] == PARAMETERS and whole["reasoning"] == {"effort": "medium"}
    used = whole["usage"]
    assert 0 < used["output_tokens_details"]["reasoning_tokens"] < used["output_tokens"]

    first, second, *events, last = streamed(server.ask(PATH, request, stream=True))
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    output = last["response"]["output"]
    assert last["type"] == "response.completed" and list(map(plain, output)) == list(map(plain, whole["output"]))
    assert last["response"]["usage"] == used
    for index, item in enumerate(output):
        added, *own, done = [event for event in events if event["output_index"] == index]
        assert added["type"] == "response.output_item.added" and done["type"] == "response.output_item.done"
        assert done["item"] == item and added["item"]["id"] == item["id"] == own[0]["item_id"]
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert "".join(event["delta"] for event in own if event["type"].endswith(".delta")) == text
        kinds = [event["type"].removeprefix("response.") for event in own if not event["type"].endswith(".delta")]
        name = {"reasoning": "reasoning_text", "message": "output_text", "function_call": "function_call_arguments"}
        parts = [] if item["type"] == "function_call" else ["content_part.added", "content_part.done"]
        assert kinds == [*parts[:1], f"{name[item['type']]}.done", *parts[1:]]
        assert not [event for event in own if event["item_id"] != item["id"]]
    assert [event["output_index"] for event in events] == sorted(event["output_index"] for event in events)


def test_what_was_cut_is_incomplete(serve):
    server = serve({"text": f"<think>two cities</think>\n{CALL}"})
    whole = server.ask(PATH, {**BODY, **THINKING, "tools": FLAT}).json()
    tokens = whole["usage"]["output_tokens"]
    for limit, kinds in ((9, ["reasoning"]), (tokens - 9, ["reasoning", "function_call"])):
        cut = {**BODY, **THINKING, "tools": FLAT, "max_output_tokens": limit}
        *_, last = streamed(server.ask(PATH, cut, stream=True))
        assert last["type"] == "response.incomplete"
        items = last["response"]["output"]
        assert [item["type"] for item in items] == kinds and items[-1]["status"] == "incomplete"
        assert list(map(plain, items)) == list(map(plain, server.ask(PATH, cut).json()["output"]))


def test_a_conversation_has_the_prompt_of_its_chat(serve):
    server = serve()
    calls = [{"id": f"call_{city}", "type": "function",
              "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
             for city in ("Rome", "Paris")]  # fmt: skip
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "two cities", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_Rome", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_Paris", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "call_Rome", "content": "snow"},
    ]
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {
            "type": "reasoning",
            "id": "rs_0",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "two cities"}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        *({"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls),
        {"type": "function_call_output", "call_id": "call_Rome", "output": "sun"},
        {"type": "function_call_output", "call_id": "call_Paris", "output": [{"type": "input_text", "text": "rain"}]},
        {"type": "function_call", "call_id": "call_Rome", **calls[0]["function"]},
        {"type": "function_call_output", "call_id": "call_Rome", "output": "snow"},
    ]
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    chat = {"model": "tiny", "messages": messages, "tools": TOOLS, "max_tokens": 3, **thinking}
    for more in (THINKING, thinking):
        for path, body in (("/v1/chat/completions", chat), (PATH, {**BODY, "input": items, "tools": FLAT, **more})):
            response = server.ask(path, body)
            assert response.status_code == 200, response.text
        (prompt, _), (expected, _) = server.engine.asked[-1], server.engine.asked[-2]
        assert prompt.ids == expected.ids and prompt.tools.tools[0].parameters == expected.tools.tools[0].parameters
    named = {**BODY, "tools": FLAT, "tool_choice": NAMED, "parallel_tool_calls": False}
    assert server.ask(PATH, named).status_code == 200
    use = server.engine.asked[-1][0].tools
    assert use.required and not use.parallel and [tool.name for tool in use.tools] == ["get_weather"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "should be 'function'"),
        ({"tools": FLAT, "tool_choice": "any"}, "tool_choice", "'none', 'auto' or 'required'"),
        ({"tools": FLAT, "tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "'f' is none of the tools"),
        ({"tools": FLAT, "tool_choice": {"type": "allowed_tools", "name": "f"}}, "tool_choice.type", "'function'"),
        ({"tools": FLAT, "text": {"format": {"type": "json_object"}}}, None, "response_format goes with no tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text", "has no 'schema'"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", "should be 'auto'"),
        ({**THINKING, "chat_template_kwargs": {"thinking": False}}, "chat_template_kwargs", "contradict each other"),
        ({**THINKING, "instructions": "Be brief."}, None, "thinking takes the place of the system message"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"}]}, "input", "is no JSON"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input.0.encrypted_content", "should be None"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type", "should be 'message'"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}]}, None, "must be the user's"),
    ],
)  # fmt: skip
def test_what_is_refused(serve, fields, param, message):
    error = serve().ask(PATH, {**BODY, **fields}).json()["error"]
    assert message in error["message"] and error["param"] == param, error


def test_the_client_calls_a_tool_and_goes_on(engine_client):
    request = {"model": "tiny", "tools": FLAT[:1], "max_output_tokens": 300}
    question = [{"role": "user", "content": "Weather in Rome?"}]
    response = engine_client.responses.create(**request, input=question, tool_choice=NAMED)
    (call,) = response.output
    assert response.status == "completed" and json.loads(call.arguments)["city"] in ("Paris", "Rome")
    with engine_client.responses.stream(**request, input=question, tool_choice=NAMED) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response().output[0]
    assert "".join(deltas) == final.arguments == call.arguments and len(deltas) > 3
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    again = engine_client.responses.create(**request, input=[*question, *response.output, result], tool_choice="none")
    assert again.output_text
