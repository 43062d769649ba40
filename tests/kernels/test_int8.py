"""int8 activations: products against the same integers in numpy, and a whole model against one without them."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.kernels import library
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from tests.families import QUANTIZABLE, quantizable_config
from tests.kernels.instruction_sets import taken
from tests.kernels.test_linear import Held, product
from tests.random_checkpoints import random_checkpoint, random_pixels

SETS = ("amx", "avx512", "avx2", "plain")
# rows: less than a block, more than one, many; K and N beside the sides of blocks; a deep weight
SHAPES = ((17, 33, 65), (40, 1400, 70), (290, 64, 31))


@pytest.fixture(params=SETS)
def instructions(request):
    """One instruction set after the other."""
    with taken(request.param) as name:
        yield name


def rounded_rows(x):
    """Integers of every row, and its scale [M, 1]."""
    top = np.abs(x).max(axis=1, keepdims=True)
    return np.rint(x.astype(np.float64) * (np.float32(127) / top)), top / np.float32(127)


def rounded_weight(held, kind, k):
    """Integers of a weight as products with int8 activations take them, and the scale of every column [N]."""
    q = held.weight.numpy()
    if kind == "int4":
        q = np.stack([q & 15, q >> 4], axis=1).reshape(-1, q.shape[1])[:k].astype(np.int64)
        q = (q ^ 8) - 8
    q, scales = q.astype(np.int64), held.scales.numpy()
    offsets = None if held.offsets is None else held.offsets.numpy()
    if len(scales) == 1 and offsets is None:
        return q, scales[0]
    low, high, places, unit = (-8, 7, 10, 16) if kind == "int4" else (-128, 127, 14, 1)
    if offsets is None:
        column = scales.max(axis=0) / np.float32(unit)
    else:
        column = np.maximum(np.abs(low * scales + offsets), np.abs(high * scales + offsets)).max(0) / np.float32(127)
    times = np.rint(scales / column * np.float32(1 << places)).astype(np.int64)
    of = np.arange(k) // (k if held.group == -1 else held.group)
    q = ((q << (15 - places)) * times[of] + (1 << 14)) >> 15
    if offsets is not None:
        q += np.rint(offsets / column).astype(np.int64)[of]
    return np.clip(q, -128, 127), column


def test_products_are_those_of_the_integers(instructions):
    rng = np.random.default_rng(0)
    for m, k, n in SHAPES:
        for kind, group, offsets in (("int8", -1, False), ("int8", 32, False), ("int4", -1, False), ("int4", 32, False),
                                     ("int4", 32, True)):  # fmt: skip
            held = Held(kind, k, n, rng, group, offsets)
            x = rng.normal(size=(m, k)).astype(np.float32)
            (rows, row_scales), (weight, column_scales) = rounded_rows(x), rounded_weight(held, kind, k)
            exact = rows @ weight * row_scales.astype(np.float64) * column_scales.astype(np.float64)
            found = product(x, held, int8=True)
            if offsets:  # a bound rounded once or twice may move a number by one
                assert (np.abs(found - exact) < 1e-3 * np.abs(exact).max()).all()
            else:
                np.testing.assert_allclose(found, exact, rtol=4e-7)


def test_a_row_that_is_not_finite_stays_so(instructions):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 64)).astype(np.float32)
    x[3, 5], x[20, 7] = np.nan, np.inf
    found = product(x, Held("int8", 64, 48, rng, offsets=False), int8=True)
    assert np.isnan(found[[3, 20]]).all() and np.isfinite(np.delete(found, [3, 20], axis=0)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if library.unavailable_reason():
        pytest.skip(library.unavailable_reason())
    return str(random_checkpoint(tmp_path_factory.mktemp("int8") / "hf", quantizable_config(QUANTIZABLE[0])))


def rounding_twin(folder):
    """The model with every product in float32, of activations that a hook has rounded."""
    model = AutoModel.from_pretrained(folder, load_in_8bit=True, int8_activations=True)

    def hook(_, inputs):
        x = inputs[0].numpy()
        rows, scales = rounded_rows(x.reshape(-1, x.shape[-1]))
        return paddle.to_tensor((rows * scales).astype(np.float32).reshape(x.shape))

    for layer in model.sublayers():
        if isinstance(layer, QuantizedLinear):
            layer.int8_activations = False
            layer.register_forward_pre_hook(hook)
    return model


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-2), ("bfloat16", 8e-2)])
def test_model(folder, tmp_path, dtype, bound):
    """Prefill and vision: float32 products of the rounded activations, which rounding again may move by a step; with
    bfloat16 arithmetic the logits of five prompts differ by 4.1 to 5.8 %."""
    model = AutoModel.from_pretrained(folder, dtype=dtype, load_in_8bit=True, int8_activations=True)
    assert all(layer.native for layer in (*model.vision_model.encoder.layers, *model.language_model.model.layers))
    pixels, ids = paddle.to_tensor(random_pixels(2, 56)), np.random.default_rng(0).integers(3, 900, (1, 50))
    ids[0, 2:10] = model.img_context_token_id
    with paddle.no_grad():
        found, exact = (
            (each.extract_feature(pixels).numpy(), each(pixels, paddle.to_tensor(ids)).logits.numpy())
            for each in (model, rounding_twin(folder))
        )
    for ours, theirs in zip(found, exact):
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max()
    with pytest.raises(ValueError, match="load the model without it to save it"):
        model.save_pretrained(str(tmp_path / "saved"))


def test_few_rows_stay_exact(folder):
    """Decoding is that of a model without the option."""
    ids = paddle.to_tensor(np.random.default_rng(0).integers(3, 900, (1, 4)))
    models = (AutoModel.from_pretrained(folder, load_in_8bit=True, int8_activations=int8) for int8 in (False, True))
    with paddle.no_grad():
        np.testing.assert_array_equal(*(model.language_model(ids).numpy() for model in models))


def test_without_quantized_weights(folder):
    with pytest.raises(ValueError, match="needs quantized weights"):
        AutoModel.from_pretrained(folder, int8_activations=True)
