"""`thinking=True`: the prompt is that of the model cards, and thoughts are the `reasoning` of a `Response`."""

import pytest

from paddle_internvl.chat.messages import stream_responses
from paddle_internvl.chat.pipeline import Pipeline
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.prompt.thinking import THINKING_MESSAGE
from tests.random_checkpoints import TOKENIZER

SETTINGS = {"max_new_tokens": 6}
QUESTION = {"role": "user", "content": "Why?"}
BEGUN = {"role": "assistant", "content": "<think>\nHello", "prefix": True}


@pytest.fixture(scope="module")
def model():
    """The bundled model: the message that asks for thoughts is longer than the context of the random ones."""
    return InternVLChatModel.from_pretrained(str(TOKENIZER))


def test_the_prompt_is_the_cards(model, monkeypatch):
    answer = model.chat_messages([QUESTION], SETTINGS, thinking=True)
    assert answer.reasoning is None
    monkeypatch.setattr(model, "system_message", THINKING_MESSAGE)
    assert answer == model.chat_messages([QUESTION], SETTINGS)
    assert answer.text == model.chat(model.tokenizer, None, "Why?", SETTINGS)


def test_reasoning(model):
    messages = [QUESTION, BEGUN]
    whole = model.chat_messages(messages, SETTINGS, system=THINKING_MESSAGE)
    response = model.chat_messages(messages, SETTINGS, thinking=True)
    assert (response.text, response.reasoning, response.finish_reason) == ("", whole.text, "length")
    assert response.message == {"role": "assistant", "content": "", "reasoning_content": whole.text}
    assert "<details><summary>thoughts</summary>" in response._repr_html_()
    pieces = list(stream_responses(model, model.tokenizer, [messages], SETTINGS, thinking=True))
    assert "".join(piece.reasoning or "" for piece in pieces) == whole.text
    beams = [model.chat_messages(messages, {**SETTINGS, "num_beams": 2}, **options)
             for options in ({"system": THINKING_MESSAGE}, {"thinking": True})]  # fmt: skip
    assert beams[1].reasoning == beams[0].text and beams[1].text == ""


def test_sessions_keep_thoughts_or_not(model):
    """Of one pipeline; an option of a call takes the place of the pipeline's."""
    with Pipeline(model, thinking=True) as pipe:
        session = pipe.session()
        session.messages = [QUESTION, {"role": "assistant", "content": "A", "reasoning_content": "b"}]
        prompts = [model.count_tokens([*session.messages, QUESTION], thinking=True, keep_thoughts=keep).total
                   for keep in (True, False)]  # fmt: skip
        assert pipe([*session.messages, QUESTION], SETTINGS).input_token_len == prompts[0] > prompts[1]
        for response in pipe.chat("Why?", session, SETTINGS, stream_response=True, keep_thoughts=False):
            assert response.input_token_len == prompts[1]
        assert session.messages[-1]["role"] == "assistant" and session.response.reasoning is None
        with pytest.raises(ValueError, match="thinking takes the place of the system message"):
            pipe("Why?", system="Be brief.")
        assert pipe("Why?", SETTINGS, thinking=False) == model.chat_messages([QUESTION], SETTINGS)
