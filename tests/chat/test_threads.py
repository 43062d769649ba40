"""Threads that share a model get the answers of sequential calls, from each of its chat methods."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl import load_image
from tests.random_checkpoints import ROOT, TOKENIZER

SHAPES, TWO = (str(ROOT / "demo/assets" / name) for name in ("shapes.png", "two.png"))
QUESTIONS = ["Describe the image.", "How many objects are there?", "What color is the object in the center?"]
SETTINGS = {"max_new_tokens": 40}


@pytest.fixture(scope="module")
def model():
    return AutoModel.from_pretrained(str(TOKENIZER))


def messages(question, picture):
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def chat(model, question, picture):
    return model.chat(model.tokenizer, load_image(picture), question, SETTINGS)


def batch_chat(model, question, picture):
    pixels = load_image(picture)
    return model.batch_chat(model.tokenizer, pixels, [question], SETTINGS, num_patches_list=[pixels.shape[0]])


def sampled(model, question, picture):
    settings = {**SETTINGS, "do_sample": True, "seed": len(question)}
    return model.chat_messages(messages(question, picture), settings).text


def streamed(model, question, picture):
    return list(model.chat_stream(messages(question, picture), SETTINGS))


def beams(model, question, picture):
    return model.chat_messages(messages(question, picture), {"max_new_tokens": 8, "num_beams": 2}).text


@pytest.mark.parametrize("call", [chat, batch_chat, sampled, streamed, beams])
def test_answers_are_those_of_sequential_calls(model, call):
    work = [(model, question, picture) for picture in (SHAPES, TWO) for question in QUESTIONS] * 2
    expected = [call(*arguments) for arguments in work]
    model.feature_cache.clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda arguments: call(*arguments), work)) == expected
