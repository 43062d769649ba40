"""The bundled checkpoint answers with kernels what it answers without, token by token."""

import paddle
import pytest
from paddlenlp.transformers import AutoModel, AutoTokenizer

from demo.tiny.evaluate import collect
from paddle_internvl.media.images import image_tiles
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.linear import widen
from tests.kernels.test_native_layers import PLAIN
from tests.random_checkpoints import TOKENIZER

QUESTIONS = 2  # of each kind: 22


@pytest.fixture(scope="module")
def asked():
    """(pixels or None, tiles of each picture, question) of unseen scenes."""
    for_each = []
    for case in collect(QUESTIONS):
        tiles = [paddle.to_tensor(image_tiles(picture, 448, max_num=case.max_num)) for picture in case.pictures]
        pixels = paddle.concat(tiles) if tiles else None
        for_each.append((pixels, [len(each) for each in tiles], case.prefix + case.question.text))
    return for_each


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_answers_are_equal(isa, asked, stored):
    model, tokenizer = AutoModel.from_pretrained(str(TOKENIZER)), AutoTokenizer.from_pretrained(str(TOKENIZER))
    if stored == "float32":
        widen(model)
    weight = model.language_model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == getattr(paddle, stored)
    answers = []
    for names in (PLAIN, {"decoder_layer": "native", "vision_layer": "native"}):
        model.feature_cache.clear()
        with dispatch.use_forms(**names):
            answers.append(
                [
                    model.chat(tokenizer, pixels, question, {"max_new_tokens": 48}, num_patches_list=counts)
                    for pixels, counts, question in asked
                ]
            )
    assert len(answers[0]) >= 20 and all(answers[0])
    assert answers[0] == answers[1]
