"""Thinking by request: `reasoning_content` beside the content, whole and streamed."""

import json

import pytest

from paddle_internvl.prompt.thinking import THINKING_MESSAGE
from tests.serve.running import events

THINKING = {"enable_thinking": True}


@pytest.fixture
def server(serve):
    return serve({"text": "<think>two shapes</think>\na circle"})


def prompt(server, **request) -> str:
    """The text of the prompt that a request makes."""
    response = server.ask(**request)
    assert response.status_code == 200, response.text
    return server.engine.tokenizer.decode(server.engine.asked[-1][0].ids)


def test_whole_and_streamed(server):
    choice = server.ask(chat_template_kwargs=THINKING, logprobs=True).json()["choices"][0]
    message = {"role": "assistant", "content": "a circle", "refusal": None, "reasoning_content": "two shapes"}
    assert choice["message"] == message and choice["finish_reason"] == "stop"
    tokens = "".join(entry["token"] for entry in choice["logprobs"]["content"])
    assert tokens.strip() == "<think>two shapes</think>\na circle"  # of everything that was generated

    *chunks, done = events(server.ask(chat_template_kwargs={"thinking": True}, stream=True))
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    for name in ("reasoning_content", "content"):
        assert "".join(delta.get(name) or "" for delta in deltas) == message[name]
    assert done == "[DONE]" and len([delta for delta in deltas if "reasoning_content" in delta]) > 1

    cut = server.ask(chat_template_kwargs=THINKING, max_tokens=9).json()["choices"][0]
    assert cut["message"]["content"] == "" and cut["finish_reason"] == "length"
    assert cut["message"]["reasoning_content"] and "two shapes".startswith(cut["message"]["reasoning_content"])


def test_not_requested(server):
    for options in (None, {}, {"enable_thinking": False, "thinking": None}):
        message = server.ask(chat_template_kwargs=options).json()["choices"][0]["message"]
        assert message["content"] == "<think>two shapes</think>\na circle" and "reasoning_content" not in message


def test_prompt(server):
    turns = [
        {"role": "user", "content": "<think>x</think>"},
        {"role": "assistant", "content": "A", "reasoning_content": "b"},
        {"role": "user", "content": "C"},
    ]
    kept = prompt(server, messages=turns, chat_template_kwargs=THINKING)
    assert THINKING_MESSAGE in kept and "<think>b</think>\nA" in kept
    left_out = prompt(server, messages=turns, chat_template_kwargs={**THINKING, "keep_thoughts": False})
    assert left_out == kept.replace("<think>b</think>\n", "") and "<think>x</think>" in left_out
    body = {"messages": turns, "chat_template_kwargs": THINKING}
    assert server.ask("/v1/count_tokens", body).json()["total"] == len(server.engine.asked[0][0].ids)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]},
            "thinking takes the place of the system message; leave the system message out, move it into the question",
        ),
        ({"chat_template_kwargs": {"enable_thinking": True, "thinking": False}}, "contradict each other"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking: Input should be"),
    ],
)
def test_refusals(server, request_, message):
    response = server.ask(**{"chat_template_kwargs": THINKING, **request_})
    assert response.status_code == 400 and message in response.json()["error"]["message"]
