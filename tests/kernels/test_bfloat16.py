"""bfloat16 arithmetic of the library: products against float64 of rounded inputs, layers against float32."""

import json
import math

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.checkpoints.preparation import prepare_for_inference
from paddle_internvl.kernels import library
from paddle_internvl.models.projector import pixel_shuffle
from paddle_internvl.ops import dispatch
from tests.gpu.figures import RECORD
from tests.kernels.instruction_sets import taken
from tests.kernels.test_linear import Held, product
from tests.kernels.test_native_layers import REFERENCE, ids
from tests.random_checkpoints import random_pixels

SETS = ("amx", "avx512_bf16")
SHAPES = (  # rows of x, K, N
    (5, 1, 1),
    (7, 33, 65),  # K and N beside the sides of blocks
    (11, 1300, 90),  # a deep weight
    (16, 70, 31),  # all rows of a tile
    (33, 64, 530),  # a row more than a block
    (50, 1300, 40),
    (300, 40, 96),
    (100, 700, 70),  # blocks of rows pass the weight in two steps
    (140, 90, 20),  # a single panel of columns for many blocks of rows
)


@pytest.fixture(params=SETS)
def halves(request):
    """One instruction set with bfloat16 arithmetic after the other."""
    with taken(request.param) as name:
        yield name


def rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest bfloat16, ties to even, as float64."""
    return x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_products(halves, kind):
    """float32 sums of rounded activations and rounded weights, and what follows a product in the same pass.

    On AMX tiles products of at most 8 rows with integers are those of float32; of at most 16 the integers are exact.
    """
    rng = np.random.default_rng(0)
    for m, k, n in SHAPES:
        held, up = (Held(kind, k, n, rng, 32 if k > 32 else -1, offsets=n % 2 == 0) for _ in range(2))
        x = rng.normal(size=(m, k)).astype(np.float32)
        bias, scale, residual = (rng.normal(size=shape).astype(np.float32) for shape in ((n,), (n,), (m, n)))
        few = halves == "amx" and kind in ("int8", "int4") and m <= 16
        rows = x.astype(np.float64) if few and m <= 8 else rounded(x)
        gate, other = (one.means if few else rounded(one.means) for one in (held, up))
        y, other = rows @ gate, rows @ other
        size = 1 + np.abs(rounded(x)) @ np.maximum(np.abs(held.means), np.abs(up.means))
        # offsets are added with one rounding or two, so that a sum near the middle of two bfloat16 becomes either
        bound = 1e-5 * size + (2**-8 * np.abs(x).max() * np.abs(held.means).max() if held.offsets is not None else 0)
        found = product(x, held, bias=bias, layer_scale=scale, residual=residual, bfloat16=True)
        np.testing.assert_array_less(np.abs(found - (residual + scale * (y + bias))), bound * (1 + np.abs(scale)))
        found = product(x, held, up=up, activation=2, bfloat16=True)
        with np.errstate(over="ignore"):
            expected = y / (1 + np.exp(-y)) * other
        np.testing.assert_array_less(np.abs(found - expected), bound * (1 + np.abs(y) + np.abs(other)))


def test_what_is_not_finite_stays_so(halves):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 64)).astype(np.float32)
    x[3, 5], x[20, 7] = np.nan, np.inf
    found = product(x, Held("bfloat16", 64, 48, rng), bfloat16=True)
    assert not np.isfinite(found[[3, 20]]).any() and np.isfinite(np.delete(found, [3, 20], axis=0)).all()


@pytest.fixture(scope="module", params=["biased_v1", "dynamic_gqa", "qwen3"])
def pair(request, hf_folders):
    """The plain model of a case, and the same prepared for bfloat16 arithmetic."""
    if not library.bfloat16_isa():
        pytest.skip("this processor has no bfloat16 instructions")
    plain, prepared = (AutoModel.from_pretrained(str(hf_folders[request.param]), trainable=True) for _ in range(2))
    bounds = json.loads(RECORD.read_text())[request.param]["bfloat16"]["errors"]
    return plain, prepare_for_inference(prepared, bfloat16=True), bounds


def test_layers_are_as_near_as_a_card(halves, pair):
    """Each layer of the tower, projector, a prompt and a step of 6 rows: the error against float32 is at most that of
    CUDA's bfloat16, stage by stage, of which tests/gpu/test_figures.py holds the record."""
    plain, prepared, recorded = pair
    pixels = paddle.to_tensor(random_pixels(3, plain.config.vision_config.image_size))

    def work(model):
        decoder, tower = model.language_model, list(model.vision_model.hidden_states(pixels, -1))
        cache = decoder.new_cache(6, 40)
        made = {f"vit.block.{i}": stage for i, stage in enumerate(tower[-len(model.vision_model.encoder.layers) :])}
        made["projector"], made["logits"] = model.extract_feature(pixels), decoder(ids(0, 6, 37), cache=cache)
        made["step"] = decoder(ids(1, 6, 1), position_ids=paddle.full([6, 1], 37), cache=cache)
        return {name: stage.numpy() for name, stage in made.items()}

    with dispatch.force(**REFERENCE):
        expected = work(plain)
    recorded["step"] = recorded["logits"]
    for stage, found in work(prepared).items():
        if stage not in recorded:  # of a layer behind the one whose output is selected
            continue
        error = np.sqrt(np.mean(np.square(found - expected[stage])) / np.mean(np.square(expected[stage])))
        assert 1e-5 < error <= recorded[stage], stage


def test_projector_rounds_before_its_products(halves, pair):
    """Beside the same in float64 with and without rounding: much nearer to the former."""
    plain, prepared, _ = pair
    norm, fc1, fc2 = plain.mlp1[0], plain.mlp1[1], plain.mlp1[3]
    side, width = math.isqrt(plain.config.tile_sizes.patches), plain.config.vision_config.hidden_size
    hidden = np.random.default_rng(2).normal(size=(3, 1 + side**2, width)).astype(np.float32)
    grid = paddle.to_tensor(hidden[:, 1:].reshape(3, side, side, width))
    x = pixel_shuffle(grid, plain.downsample_ratio, plain.ps_version).numpy().reshape(-1, norm.weight.shape[0])
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + norm._epsilon)
    x = x * norm.weight.numpy() + norm.bias.numpy()

    def projected(rounding):
        inner = rounding(x) @ rounding(fc1.weight.numpy()) + fc1.bias.numpy()
        inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        return rounding(inner) @ rounding(fc2.weight.numpy()) + fc2.bias.numpy()

    found = prepared.project(paddle.to_tensor(hidden)).numpy().reshape(-1, fc2.weight.shape[1])
    errors = [np.abs(found - projected(rounding)).mean() for rounding in (rounded, np.float64)]
    assert errors[0] < errors[1] / 10
