"""Visual tokens in their slots, image flags, loss, and the errors when counts differ."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from tests.random_checkpoints import random_pixels


@pytest.fixture
def model(models):
    with paddle.no_grad():
        yield models["dynamic_gqa"]


def prompt(model, tiles):
    return paddle.to_tensor([[1, *[model.img_context_token_id] * (tiles * model.num_image_token), 9, 10]])


def test_counts_that_differ_are_an_error(model):
    pixels = paddle.to_tensor(random_pixels(2, 56))
    with pytest.raises(ValueError, match=r"12 <IMG_CONTEXT> tokens but the images give 8 \(2 tiles x 4\)"):
        model(pixels, prompt(model, 3))


def test_context_id_that_is_not_set(model):
    context, model.img_context_token_id = model.img_context_token_id, None
    try:
        with pytest.raises(ValueError, match="img_context_token_id is not set"):
            model(paddle.to_tensor(random_pixels(1, 56)), paddle.to_tensor([[1, 2]]))
    finally:
        model.img_context_token_id = context


def test_flagged_off_tiles_take_no_slot(model):
    pixels = paddle.to_tensor(random_pixels(3, 56))
    with_dummy = model(pixels, prompt(model, 2), image_flags=paddle.to_tensor([[1], [0], [1]])).logits
    without = model(pixels[paddle.to_tensor([0, 2])], prompt(model, 2)).logits
    np.testing.assert_allclose(with_dummy.numpy(), without.numpy(), rtol=1e-4, atol=1e-5)


def test_a_batch_of_dummies_is_text(model):
    ids = paddle.to_tensor([[1, 7, 8, 9]])
    dummy = model(paddle.to_tensor(random_pixels(1, 56)), ids, image_flags=paddle.to_tensor([0])).logits
    np.testing.assert_allclose(dummy.numpy(), model(input_ids=ids).logits.numpy(), rtol=1e-5, atol=1e-6)


def test_pixels_of_another_dtype_are_cast(model):
    pixels = paddle.to_tensor(random_pixels(1, 56)).astype("bfloat16")
    np.testing.assert_array_equal(
        model.extract_feature(pixels).numpy(), model.extract_feature(pixels.astype("float32")).numpy()
    )


def test_tuple_output(model):
    ids = paddle.to_tensor([[1, 7, 8, 9]])
    (logits,) = model(input_ids=ids, return_dict=False)
    loss, again = model(input_ids=ids, labels=ids, return_dict=False)
    np.testing.assert_array_equal(logits.numpy(), again.numpy())
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits[0, :-1], ids[0, 1:])), rel=1e-6)


def test_logits_can_be_left_out(model):
    ids = paddle.to_tensor([[1, 7, 8, 9]])
    out = model(input_ids=ids, labels=ids, return_logits=False)
    assert out.logits is None and out.learnt_tokens == 3
    np.testing.assert_array_equal(out.loss.numpy(), model(input_ids=ids, labels=ids).loss.numpy())


def test_gradients_reach_every_parameter(hf_folders):
    from paddlenlp.transformers import AutoModel

    for folder in hf_folders.values():
        model = AutoModel.from_pretrained(str(folder), trainable=True)
        model.train()
        ids = prompt(model, 1)
        model(paddle.to_tensor(random_pixels(1, 56)), ids, labels=ids).loss.backward()
        run = model.config.select_layer % (model.config.vision_config.num_hidden_layers + 1)
        unused = {f"vision_model.encoder.layers.{i}." for i in range(run, model.config.vision_config.num_hidden_layers)}
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None or name.startswith(tuple(unused)), name
