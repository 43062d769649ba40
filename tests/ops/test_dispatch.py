"""Implementations of operations against their references, and the choice between them.

Kernels that a CPU has are run. Those of CUDA alone are played by what Paddle documents of them, so that what is held
is our half of the bargain: layouts, masks, tables. `tests/gpu/test_card.py` runs the kernels themselves.
"""

import json

import numpy as np
import paddle
import paddle.incubate.nn.functional as fused
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings

from convert.mappings import paddle_config
from convert.quant_layout import packing_obstacle
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.kernels import library
from paddle_internvl.ops import activations, attention, dispatch, norms, rope
from paddle_internvl.ops.dispatch import Case, Machine
from tests.ops.test_attention import by_hand, problems
from tests.random_checkpoints import ROOT

NATIVE = () if library.unavailable_reason() else ("native",)


def softmax_attention(q, k, v, added):
    """softmax(q k^T / sqrt(E) + added) v with shared kv heads, in float64; added [B, 1, L, M]."""
    q, k, v = (x.numpy().astype(np.float64) for x in (q, k, v))
    groups = q.shape[2] // k.shape[2]
    k, v = (x.repeat(groups, axis=2) for x in (k, v))
    scores = np.einsum("blhe,bmhe->bhlm", q, k) / np.sqrt(q.shape[3]) + added
    assert np.isfinite(scores.max(-1)).all(), "a row without any key"
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return paddle.to_tensor(np.einsum("bhlm,bmhe->blhe", weights / weights.sum(-1, keepdims=True), v), "float32")


def triangle(length: int, total: int):
    return np.where(np.arange(total) <= np.arange(length)[:, None], 0, -np.inf)


def flash_attention(q, k, v, causal=False):
    """`flash_attention`; a causal square only, as `check_flash_causal_non_square_seqlens` has it."""
    assert not causal or q.shape[1] == k.shape[1]
    return softmax_attention(q, k, v, triangle(q.shape[1], k.shape[1]) if causal else 0.0), None


def flashmask_attention(q, k, v, startend_row_indices, causal):
    """`flashmask_attention`: key j is hidden from row startend_row_indices[.., j, 0] on."""
    length = q.shape[1]
    assert causal and startend_row_indices.dtype == paddle.int32
    assert startend_row_indices.shape == [q.shape[0], 1, length, 1] and k.shape[1] == length
    first = startend_row_indices.numpy()[:, :, :, 0][:, :, None]  # [B, 1, 1, M]
    hidden = np.arange(length)[:, None] >= first
    return softmax_attention(q, k, v, np.where(hidden, -np.inf, triangle(length, length)))


def scaled_dot_product_attention(q, k, v, attn_mask):
    """`scaled_dot_product_attention` with a mask to add, which FlashAttention wants of q's dtype and rank 4."""
    assert attn_mask.dtype == q.dtype and attn_mask.shape == [q.shape[0], 1, q.shape[1], k.shape[1]]
    return softmax_attention(q, k, v, attn_mask.numpy())


@pytest.fixture(scope="module", autouse=True)
def played():
    """CUDA's functions of Paddle as their documentation has them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(F.flash_attention, "flash_attention", flash_attention)
    patch.setattr(F, "flashmask_attention", flashmask_attention)
    patch.setattr(F, "scaled_dot_product_attention", scaled_dot_product_attention)
    patch.setattr(fused, "fused_rotary_position_embedding", rotary)
    patch.setitem(attention.MASKED_HALF, paddle.float32, -1e30)
    yield
    patch.undo()


def rotary(q, k=None, v=None, sin=None, cos=None, position_ids=None, use_neox_rotary_style=True):
    """`fused_rotary_position_embedding` as FusedRopeKernelImpl has it (fused_rope_utils.h): halves paired, one table
    [1, L, 1, E] for all rows."""
    assert k is v is position_ids is None and not use_neox_rotary_style
    assert list(sin.shape) == list(cos.shape) == [1, q.shape[1], 1, q.shape[3]]
    x, half = q.numpy(), q.shape[3] // 2
    out = np.empty_like(x)
    for d in range(2 * half):
        other = -x[..., d + half] if d < half else x[..., d - half]
        out[..., d] = x[..., d] * cos.numpy()[..., d] + other * sin.numpy()[..., d]
    return paddle.to_tensor(out), None, None


def flash(q, k, v, **how):
    """The flash implementation, past the question whether this machine has it."""
    tensors = [paddle.to_tensor(x) for x in (q, k, v)]
    with pytest.MonkeyPatch.context() as patch, paddle.no_grad():
        patch.setattr(dispatch, "choose", lambda *_: "flash")
        return attention.attention(*tensors, **how).numpy()


@settings(max_examples=80, deadline=None)
@given(problem=problems())
def test_flash_against_the_definition(problem):
    q, k, v, causal, mask, window = problem
    key_mask = None if mask is None else paddle.to_tensor(mask)
    expected = by_hand(q, k, v, causal, mask, window)
    np.testing.assert_allclose(flash(q, k, v, causal=causal, key_mask=key_mask, window=window), expected, atol=2e-5)


def test_flash_with_padding_and_a_window():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 2, 9, 2, 8)).astype(np.float32)
    mask = np.arange(9) >= np.array([[0], [4]])
    out = flash(q, k, v, causal=True, key_mask=paddle.to_tensor(mask), window=3)
    with np.errstate(invalid="ignore"):  # of rows of padding the definition knows nothing
        expected = by_hand(q, k, v, True, mask, 3)
    np.testing.assert_allclose(out[mask], expected[mask], atol=2e-5)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("window", [None, 3])
def test_flash_of_rows_of_different_lengths(window):
    rng = np.random.default_rng(0)
    q, (k, v) = rng.normal(size=(3, 1, 6, 8)).astype(np.float32), rng.normal(size=(2, 3, 12, 2, 8)).astype(np.float32)
    lengths = [12, 1, 7]
    out = flash(q, k, v, causal=True, window=window, lengths=paddle.to_tensor(lengths))
    for row, n in enumerate(lengths):
        alone = by_hand(q[row : row + 1], k[row : row + 1, :n], v[row : row + 1, :n], True, None, window)
        np.testing.assert_allclose(out[row : row + 1], alone, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (4, 1)])
def test_fused_rope(shape):
    tables = rope.Rope(head_dim=8, theta=1e4, kind="dynamic", factor=2.0, trained_length=3)
    positions = paddle.to_tensor(np.random.default_rng(0).integers(0, 50, shape))
    x = paddle.randn([*shape, 6, 8])
    cos, sin = tables.tables(positions)
    np.testing.assert_allclose(
        rope.fused_rope(x, cos, sin).numpy(), rope.reference_rope(x, cos, sin).numpy(), atol=1e-6
    )


@pytest.mark.parametrize("width", [64, 60])
def test_rms_norm_with_and_without_the_sum(width):
    x, y, weight = paddle.randn([2, 5, width]), paddle.randn([2, 5, width]) * 3, paddle.randn([width])
    results = {}
    for form in ("reference", "fused", *NATIVE):
        with paddle.no_grad(), dispatch.force(rms_norm=form):
            results[form] = [norms.rms_norm(x, weight, 1e-6), *norms.add_rms_norm(x, y, weight, 1e-6)]
        for plain, fast in zip(results["reference"], results[form]):
            np.testing.assert_allclose(plain.numpy(), fast.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(results[form][1].numpy(), (x + y).numpy())


def test_layer_norm_and_gelu():
    x, norm = paddle.randn([2, 5, 60]) * 3, norms.LayerNorm(60, epsilon=1e-5)
    norm.weight.set_value(paddle.randn([60]))
    norm.bias.set_value(paddle.randn([60]))
    for form in ("reference", *NATIVE):
        with paddle.no_grad(), dispatch.force(layer_norm=form, gelu=form):
            expected = F.layer_norm(x, [60], norm.weight, norm.bias, 1e-5)
            np.testing.assert_allclose(norm(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(activations.GELU()(x).numpy(), F.gelu(x).numpy(), rtol=1e-5, atol=1e-6)


def test_swiglu_and_its_gradient():
    values = {}
    for form in ("reference", "fused"):
        gate, up = (paddle.to_tensor(np.random.default_rng(i).normal(size=(3, 7)).astype(np.float32)) for i in (1, 2))
        gate.stop_gradient = up.stop_gradient = False
        with dispatch.force(swiglu=form):
            out = activations.swiglu(gate, up)
        out.square().sum().backward()
        values[form] = [out, gate.grad, up.grad]
    for plain, fast in zip(*values.values()):
        np.testing.assert_allclose(plain.numpy(), fast.numpy(), rtol=1e-5, atol=1e-6)


def test_norms_of_sums_wider_than_their_weights():
    x = paddle.randn([2, 3, 16])
    for norm in (norms.RMSNorm(16, 1e-6), norms.LayerNorm(16, epsilon=1e-6)):
        expected = norm(x)
        norm.to(dtype="float64")  # any other dtype than the input's
        assert norm(x).dtype == paddle.float64
        np.testing.assert_allclose(norm(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def machine(capability=(0, 0), kernels_missing="", flags=dispatch.FLAGS) -> Machine:
    return Machine(capability, kernels_missing, flags)


@pytest.fixture
def on(monkeypatch):
    """Pretend to be on another machine."""
    return lambda *facts, **named: monkeypatch.setattr(dispatch, "this_machine", lambda: machine(*facts, **named))


CARDS = {  # capability, dtype, heads of -> implementations of attention, rms_norm, rope
    ((8, 0), "bfloat16", 64): ("flash", "fused", "fused"),
    ((9, 0), "float16", 128): ("flash", "fused", "fused"),
    ((8, 0), "float32", 64): ("reference", "fused", "fused"),
    ((8, 0), "bfloat16", 12): ("reference", "fused", "fused"),  # not a multiple of 8
    ((8, 0), "bfloat16", 264): ("reference", "fused", "fused"),
    ((7, 0), "float16", 64): ("reference", "fused", "fused"),
}


@pytest.mark.parametrize("card", CARDS)
def test_choice_on_cards(card, on):
    capability, dtype, head_dim = card
    on(capability)
    case = Case("gpu", dtype, head_dim=head_dim)
    assert tuple(dispatch.choose_for(name, case) for name in ("attention", "rms_norm", "rope")) == CARDS[card]
    assert dispatch.choose_for("rms_norm", Case("gpu", dtype, grad=True)) == "paddle"
    on(capability, flags=frozenset())
    assert dispatch.choose_for("attention", case) == "reference"


@pytest.mark.parametrize(("capability", "chosen"), [((7, 0), "reference"), ((8, 6), "kernel"), ((8, 7), "reference")])
def test_quantized_linear_on_cards(capability, chosen, on):
    on(capability)
    assert dispatch.choose_for("weight_only_linear", Case("gpu", "float16")) == chosen


@pytest.mark.parametrize("member", sorted(ROOT.glob("configs/internvl*.json")), ids=lambda file: file.stem)
def test_published_members_run_the_fast_implementations(member, on):
    """Flash attention takes their heads, and quantized weights their linear layers."""
    on((8, 0))
    config = InternVLChatConfig.from_dict(paddle_config(json.loads(member.read_text())))
    vision, llm = config.vision_config, config.llm_config
    for head_dim in (vision.hidden_size // vision.num_attention_heads, llm.head_dim):
        assert dispatch.choose_for("attention", Case("gpu", "bfloat16", head_dim=head_dim)) == "flash"
    widths = llm.hidden_size, llm.num_key_value_heads * llm.head_dim, llm.intermediate_size
    for inputs, outputs in ((0, 0), (0, 1), (0, 2), (2, 0)):
        assert all(packing_obstacle(widths[inputs], widths[outputs], bits) is None for bits in (8, 4))


# operation -> its implementation on a CPU with gradients (a pair: without and with kernels), without gradients where
# there are no kernels, and where there are
ON_A_CPU = {
    "attention": (("blockwise", "native"), "blockwise", "native"),
    "layers": ("modules", "modules", "native"),
    "rms_norm": (("reference", "native"), "fused", "native"),
    "layer_norm": ("reference", "reference", "native"),
    "experts": ("grouped", "grouped", "native"),
    "rope": (("reference", "native"), "reference", "native"),
    "swiglu": ("fused", "fused", "native"),
    "gelu": ("reference", "reference", "native"),
    "linear": ("reference", "reference", "native"),
    "weight_only_linear": ("reference", "reference", "native"),
}


@pytest.mark.parametrize(("reason", "column"), [("there is no compiler", 1), ("", 2)])
def test_choice_on_a_cpu(reason, column, on):
    assert ON_A_CPU.keys() == dispatch.CANDIDATES.keys()
    on(kernels_missing=reason)
    x = paddle.ones([1, 1, 1, 8])
    with paddle.enable_grad():
        trained = {name: row[0] if isinstance(row[0], str) else row[0][column - 1] for name, row in ON_A_CPU.items()}
        assert {name: dispatch.choose(name, x) for name in ON_A_CPU} == trained
    with paddle.no_grad():
        chosen = {name: dispatch.choose(name, x) for name in ON_A_CPU}
        assert chosen == {name: row[column] for name, row in ON_A_CPU.items()}
        if reason:
            with dispatch.force(gelu="native"), pytest.raises(ValueError, match="no kernels: there is no compiler"):
                activations.gelu(x)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.skipif(not NATIVE, reason="needs the kernels")
def test_gradients_of_native_rope_and_rms_norm(batch):
    """They are those of the definitions, which Paddle differentiates."""
    paddle.seed(0)
    values = paddle.randn([2, 5, 3, 8]), paddle.rand([8]) + 0.5
    cos, sin = rope.Rope(8, 1e4).tables(paddle.arange(10).reshape([2, 5])[:batch])
    slope = paddle.randn([2, 5, 3, 8])
    gradients = []
    for form in ("reference", "native"):
        x, weight = (value.clone().detach() for value in values)
        x.stop_gradient = weight.stop_gradient = False
        with dispatch.force(rope=form, rms_norm=form):
            (rope.apply(norms.rms_norm(x, weight, 1e-2), cos, sin) * slope).sum().backward()
        gradients.append([x.grad.numpy(), weight.grad.numpy()])
    for expected, actual in zip(*gradients):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_forced_implementation_that_can_not_run_is_an_error(on):
    x = paddle.ones([1, 1, 1, 8])
    with (
        dispatch.force(attention="flash"),
        pytest.raises(ValueError, match="'flash' of attention can't run: it runs on gpu"),
    ):
        attention.attention(x, x, x, causal=True)
    with dispatch.force(rms_norm="fused"), pytest.raises(ValueError, match="it has no gradient"):
        norms.rms_norm(x, x[0, 0, 0], 1e-6)
    with (
        pytest.raises(ValueError, match="conv has no implementation 'x'; use one of attention"),
        dispatch.force(conv="x"),
    ):
        pass
    flash, case = dispatch.CANDIDATES["attention"][0], Case("gpu", "float16", head_dim=64)
    assert flash.obstacle(case, machine((7, 5))) == "it needs a card of compute capability 8.0"
    assert "FLAGS_flash_attn_available is not set" in flash.obstacle(case, machine((8, 6), flags=frozenset()))


def test_every_candidate_has_its_function():
    tables = {
        "attention": {*attention.IMPLEMENTATIONS, "native"},
        "rms_norm": norms.RMS_NORM_IMPLEMENTATIONS,
        "layer_norm": norms.LAYER_NORM_IMPLEMENTATIONS,
        "rope": rope.IMPLEMENTATIONS,
        "swiglu": activations.SWIGLU_IMPLEMENTATIONS,
        "gelu": activations.GELU_IMPLEMENTATIONS,
    }
    for name, table in tables.items():
        assert {candidate.name for candidate in dispatch.CANDIDATES[name]} == set(table), name


def test_flash_segments_are_row_bounds(played):
    """Packed samples on a card: FlashMask bounds, no mask in memory."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 2, 9, 2, 8)).astype(np.float32)
    segments = np.array([[0, 0, 0, 1, 1, 1, 1, 2, 2], [3] * 9])
    for window in (None, 2):
        out = flash(q, k, v, causal=True, window=window, segment_ids=paddle.to_tensor(segments))
        for row, own in enumerate(segments):
            for segment in set(own):
                part = np.flatnonzero(own == segment)
                alone = by_hand(*(x[row : row + 1, part] for x in (q, k, v)), True, None, window)
                np.testing.assert_allclose(out[row : row + 1, part], alone, atol=2e-5)
