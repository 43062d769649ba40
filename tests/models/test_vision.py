"""InternViT's parts that goldens do not single out: norms, stochastic depth, position interpolation, pixel shuffle."""

import numpy as np
import paddle
import pytest

from paddle_internvl.models.projector import pixel_shuffle
from paddle_internvl.models.vision import DropPath
from paddle_internvl.ops.norms import RMSNorm, rms_norm
from tests.random_checkpoints import random_pixels


@pytest.mark.parametrize("grad", [False, True])  # the fused form has no CPU gradient, so there are two
def test_rms_norm_by_hand(grad):
    x = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    weight = np.linspace(-1, 2, 16, dtype=np.float32)
    with paddle.set_grad_enabled(grad):
        out = rms_norm(paddle.to_tensor(x), paddle.to_tensor(weight), 1e-6).numpy()
    by_hand = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * weight
    np.testing.assert_allclose(out, by_hand, rtol=1e-5, atol=1e-6)


def test_rms_norm_learns():
    norm = RMSNorm(8, 1e-6)
    norm(paddle.randn([2, 8])).square().sum().backward()
    assert norm.weight.grad is not None


def test_drop_path():
    paddle.seed(0)
    drop, x = DropPath(0.25), paddle.ones([4000, 1, 1])
    drop.train()
    kept = drop(x).flatten().numpy()
    np.testing.assert_allclose(np.unique(kept), [0, 4 / 3], rtol=1e-6)
    assert abs((kept > 0).mean() - 0.75) < 0.03
    drop.eval()
    assert drop(x) is x


def test_drop_path_rates_rise_linearly(models):
    layers = models["biased_v1"].vision_model.encoder.layers
    np.testing.assert_allclose([layer.drop_path.rate for layer in layers], [0, 0.1 / 3, 0.2 / 3, 0.1])


def test_positions_at_their_own_size_are_the_table_itself(models):
    embeddings = models["dynamic_gqa"].vision_model.embeddings
    assert embeddings.positions(4, 4) is embeddings.position_embedding
    assert embeddings.positions(6, 3).shape == [1, 19, 48]


def test_hidden_state_indices(models, case):
    vision = models[case].vision_model
    pixels = paddle.to_tensor(random_pixels(1, 56))
    with paddle.no_grad():
        states = vision(pixels, output_hidden_states=True).hidden_states
        for index in (0, 1, -1, -2, -len(states)):
            np.testing.assert_array_equal(vision.hidden_state(pixels, index).numpy(), states[index].numpy())
        assert len(vision(pixels, return_dict=False)) == 2


def test_pixel_shuffle_by_hand():
    grid = paddle.arange(16).reshape([1, 4, 4, 1]).astype("float32")  # value = 4 * row + column
    v2 = pixel_shuffle(grid, 0.5, "v2")[0].numpy()
    assert (
        v2[0, 0].tolist() == [0, 1, 4, 5] and v2[0, 1].tolist() == [2, 3, 6, 7] and v2[1, 0].tolist() == [8, 9, 12, 13]
    )
    v1 = pixel_shuffle(grid, 0.5, "v1")[0].numpy()
    np.testing.assert_array_equal(v1, v2.transpose(1, 0, 2))
