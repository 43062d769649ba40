"""Every stage of the network against upstream's own code (goldens): relative error at most 2e-5, tokens equal."""

import json

import numpy as np
import paddle
import pytest

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.ops import dispatch
from tests.families import GOLDEN, MEMBERS
from tests.random_checkpoints import ROOT, random_pixels

TOLERANCE = 2e-5


def golden(case):
    return np.load(ROOT / "tests/goldens" / f"{case}.npz")


def relative_error(ours, reference):
    ours = ours.numpy() if hasattr(ours, "numpy") else ours
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


@pytest.fixture(params=["reference", "blockwise"])
def attention(request):
    with dispatch.force(attention=request.param), paddle.no_grad():
        yield request.param


@pytest.fixture(params=[*GOLDEN, *MEMBERS])
def case(request):
    return request.param


@pytest.fixture
def inputs(models, case):
    """(model, golden, pixels)"""
    model = models[case]
    return model, golden(case), paddle.to_tensor(random_pixels(3, model.config.tile_side))


def test_vision_tower(inputs, attention):
    model, reference, pixels = inputs
    output = model.vision_model(pixels, output_hidden_states=True)
    assert relative_error(output.hidden_states[0], reference["vision.embeddings"]) < TOLERANCE
    assert relative_error(output.last_hidden_state, reference["vision.last_hidden_state"]) < TOLERANCE
    assert len(output.hidden_states) == model.config.vision_config.num_hidden_layers + 1


def test_projector(inputs, attention):
    model, reference, pixels = inputs
    assert relative_error(model.extract_feature(pixels), reference["extract_feature"]) < TOLERANCE


def test_logits_and_loss(inputs, attention):
    model, reference, pixels = inputs
    ids, labels = paddle.to_tensor(reference["input_ids"]), paddle.to_tensor(reference["labels"])
    output = model(pixels, ids, image_flags=paddle.ones([3, 1], "int64"), labels=labels)
    assert relative_error(output.logits[:, ::6], reference["logits"]) < TOLERANCE
    assert float(output.loss) == pytest.approx(float(reference["loss"]), rel=TOLERANCE)


def test_greedy_ids(inputs, attention):
    model, reference, pixels = inputs
    ids = paddle.to_tensor(reference["input_ids"])
    config = GenerationConfig(max_new_tokens=len(reference["greedy"]))
    made, _ = generate_ids(
        model.language_model, model.embed(ids[:, :40], model.extract_feature(pixels)), None, config, 2
    )
    assert made[0].tolist() == reference["greedy"].tolist()
    made, _ = generate_ids(model.language_model, model.embed(ids[:, 20:], None), None, config, 2)
    assert made[0].tolist() == reference["greedy.text"].tolist()


def test_chat_answers(inputs, tokenizer):
    model, reference, pixels = inputs
    for chat in json.loads(str(reference["chats"])):
        history = None if chat["history"] is None else [tuple(turn) for turn in chat["history"]]
        answer = model.chat(
            tokenizer,
            pixels[: chat["tiles"]] if chat["tiles"] else None,
            chat["question"],
            {"max_new_tokens": 24},
            history=history,
            num_patches_list=chat["num_patches_list"],
        )
        assert answer == chat["answer"], chat["question"]
