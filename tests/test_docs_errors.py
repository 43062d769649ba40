"""The FAQ's errors, raised for real: what a user does wrong, and the words that the FAQ quotes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import paddle_internvl
from convert.folder import read_config
from tests import pages
from tests.random_checkpoints import ROOT
from tests.test_docs import _pattern, errors

TINY = ROOT / "demo/checkpoints/internvl-tiny"
SHAPES = ROOT / "demo/assets/shapes.png"
PICTURE = {"type": "image_url", "image_url": {"url": str(SHAPES)}}
QUESTION = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def model():
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(TINY))


def _load(*folder, **how):
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(folder[0] if folder else TINY), **how)


def _two_tiles():
    return np.zeros((2, 3, 448, 448), np.float32)


# What is done, given the bundled model and a folder for files; each has its heading in the FAQ.
MISTAKES = {
    "no config.json": lambda model, folder: _load(folder),
    "nothing to convert": lambda model, folder: read_config(folder),
    "misspelt argument": lambda model, folder: _load(load_in_8bits=True),
    "no such card": lambda model, folder: _load(device="gpu"),
    "not as many marks": lambda model, folder: model.chat(
        model.tokenizer, _two_tiles(), "<image> <image> <image>", {}, num_patches_list=[1, 1]
    ),
    "not as many tiles": lambda model, folder: model.chat(
        model.tokenizer, _two_tiles(), "<image>", {}, num_patches_list=[1]
    ),
    "no counts": lambda model, folder: model.batch_chat(model.tokenizer, _two_tiles(), ["<image>"] * 2, {}),
    "ids without room": lambda model, folder: model.generate(
        pixel_values=_tensor(_two_tiles()), input_ids=_tensor(np.array([[5, 6, 7]]))
    ),
    "misspelt setting": lambda model, folder: model.chat_messages([QUESTION], {"max_tokens": 3}),
    "greedy twins": lambda model, folder: model.chat_messages([QUESTION], {"n": 2}),
    "too long": lambda model, folder: model.chat_messages(
        [{"role": "user", "content": [{"type": "text", "text": "word " * 9000}, PICTURE]}]
    ),
    "too small a budget": lambda model, folder: model.count_tokens(
        [{"role": "user", "content": [PICTURE, PICTURE]}], max_total_tiles=1
    ),
    "no question": lambda model, folder: model.chat_messages([QUESTION, {"role": "assistant", "content": "Hi"}]),
    "two questions": lambda model, folder: model.chat_messages([QUESTION, QUESTION]),
    "no picture there": lambda model, folder: paddle_internvl.load_image(folder / "none.png"),
    "no picture at all": lambda model, folder: paddle_internvl.load_image(_file(folder, b"<html></html>")),
    "half a picture": lambda model, folder: paddle_internvl.load_image(_file(folder, SHAPES.read_bytes()[:900])),
    "a clip's end": lambda model, folder: model.count_tokens(
        [
            {
                "role": "user",
                "content": [{"type": "video", "video": str(SHAPES.with_name("clip.gif")), "bound": [60, 70]}],
            }
        ]
    ),
    "a folder in use": lambda model, folder: _convert(folder),
    "half a file": lambda model, folder: _shortened(folder),
}


def _tensor(values):
    import paddle

    return paddle.to_tensor(values)


def _file(folder, content: bytes):
    file = folder / "file.png"
    file.write_bytes(content)
    return file


def _convert(folder):
    from convert.streaming import convert

    (folder / "something").write_text("here")
    return convert(TINY, folder, to_paddle=True)


def _shortened(folder):
    for file in TINY.iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(content[:130] if file.suffix == ".safetensors" else content)
    return _load(folder)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_faq_has_the_words_of_the_error(model, tmp_path, mistake):
    with pytest.raises((ValueError, OSError)) as raised:
        MISTAKES[mistake](model, tmp_path)
    said = " ".join(str(raised.value).split())
    assert any(_pattern(quote).fullmatch(said) for quote in errors(pages.DOCS / "faq.md")), said
    assert not re.search(r"\n", str(raised.value)), "an error is one line"
