"""Tools in the Python API and in rows of `batch`: calls of a `Response`, and free answers that stay as they are."""

import json

import pytest

from paddle_internvl.chat.messages import answer_messages, stream_responses
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.scale import rows
from tests.random_checkpoints import TOKENIZER

PARAMETERS = {
    "type": "object", "properties": {"shape": {"enum": ["circle", "square"]}}, "required": ["shape"],
    "additionalProperties": False,
}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "note", "parameters": PARAMETERS}}]
QUESTION = {"role": "user", "content": "Which shape?"}
SETTINGS = {"max_new_tokens": 300}  # the bundled model writes many blanks


@pytest.fixture(scope="module")
def model():
    """The bundled model, whose tokenizer has no tokens of tools."""
    return InternVLChatModel.from_pretrained(str(TOKENIZER))


def test_calls(model):
    options = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    response = model.chat_messages([QUESTION], SETTINGS, **options)
    (call,) = response.tool_calls
    assert call.name == "note" and json.loads(call.arguments)["shape"] in ("circle", "square")
    assert (response.text, response.finish_reason) == ("", "tool_calls")
    *pieces, last = stream_responses(model, model.tokenizer, [[QUESTION]], SETTINGS, **options)
    assert last.tool_calls[0].arguments == call.arguments and not any(piece.text for piece in pieces)
    messages = [QUESTION, response.message, {"role": "tool", "content": "noted"}]
    prompt = model.render_prompt(messages, tools=TOOLS)
    plain = json.dumps(json.loads(call.arguments))
    assert f"{plain}}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nnoted\n" in prompt
    assert model.chat_messages(messages, SETTINGS, tools=TOOLS).finish_reason in ("stop", "tool_calls")

    row = {"id": 1, "prompt": "Which shape?", "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    dialogue, _ = rows.parse(json.dumps(row).encode(), TOKENIZER)
    (answer,) = answer_messages(model, model.tokenizer, [dialogue], SETTINGS)
    line = json.loads(rows.answer_line(1, answer))
    assert line["tool_calls"][0]["function"] == {"name": "note", "arguments": call.arguments}


def test_an_answer_without_calls_is_the_free_one(model):
    prompt = model.render_prompt([QUESTION], tools=TOOLS)
    system = prompt.removeprefix("<|im_start|>system\n").partition("<|im_end|>")[0]
    assert model.render_prompt([QUESTION], system=system) == prompt and system.startswith(model.system_message)
    free = model.chat_messages([QUESTION], SETTINGS, system=system)
    answer = model.chat_messages([QUESTION], SETTINGS, tools=TOOLS)
    assert (answer.text, answer.token_ids, answer.finish_reason) == (free.text, free.token_ids, free.finish_reason)
    assert free.text and not answer.tool_calls
    none = model.chat_messages([QUESTION], SETTINGS, tools=TOOLS, tool_choice="none")
    assert none == model.chat_messages([QUESTION], SETTINGS)
