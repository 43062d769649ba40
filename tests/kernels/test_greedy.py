"""The bundled checkpoint answers with kernels what it answers without, token by token."""

import paddle
import pytest
from paddlenlp.transformers import AutoModel, AutoTokenizer

from demo.tiny.cases import collect
from paddle_internvl.media.images import image_tiles
from paddle_internvl.ops.dispatch import force
from tests.kernels.test_native_layers import REFERENCE
from tests.random_checkpoints import TOKENIZER

QUESTIONS = 1  # of each kind: 11


@pytest.fixture(scope="module")
def asked():
    """(pixels or None, tiles of each picture, question) of unseen scenes."""
    for_each = []
    for case in collect(QUESTIONS):
        tiles = [paddle.to_tensor(image_tiles(picture, 448, max_num=case.max_num)) for picture in case.pictures]
        pixels = paddle.concat(tiles) if tiles else None
        for_each.append((pixels, [len(each) for each in tiles], case.prefix + case.question.text))
    return for_each


def answers(asked, **options) -> list[str]:
    model, tokenizer = (
        AutoModel.from_pretrained(str(TOKENIZER), **options),
        AutoTokenizer.from_pretrained(str(TOKENIZER)),
    )
    return [
        model.chat(tokenizer, pixels, question, {"max_new_tokens": 48}, num_patches_list=counts)
        for pixels, counts, question in asked
    ]


@pytest.fixture(scope="module")
def expected(asked):
    with paddle.no_grad(), force(**REFERENCE):
        return answers(asked, trainable=True)


def test_answers_are_equal(isa, asked, expected):
    assert len(expected) >= 10 and all(expected)
    assert answers(asked, dtype="bfloat16") == expected


def test_answers_of_float32_weights_are_equal(asked, expected):
    assert answers(asked, dtype="float32") == expected
