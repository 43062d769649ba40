"""Every form of a hot operation against its plain twin, and the choice between them.

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
from paddle_internvl import runtime
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.kernels import library
from paddle_internvl.ops import attention, dispatch, norms, rope
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
    patch.setitem(attention._MASKED_HALF, paddle.float32, -1e30)
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
    """The flash form, past the question whether this machine has it."""
    tensors = [paddle.to_tensor(x) for x in (q, k, v)]
    with pytest.MonkeyPatch.context() as patch, paddle.no_grad():
        patch.setattr(dispatch, "choose_form", lambda *_: "flash")
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
    np.testing.assert_allclose(rope._fused(x, cos, sin).numpy(), rope._plain(x, cos, sin).numpy(), atol=1e-6)


@pytest.mark.parametrize("width", [64, 60])
def test_rms_norm_with_and_without_the_sum(width):
    x, y, weight = paddle.randn([2, 5, width]), paddle.randn([2, 5, width]) * 3, paddle.randn([width])
    results = {}
    for form in ("plain", "fused", *NATIVE):
        with paddle.no_grad(), dispatch.use_forms(rms_norm=form):
            results[form] = [norms.rms_norm(x, weight, 1e-6), *norms.add_rms_norm(x, y, weight, 1e-6)]
        for plain, fast in zip(results["plain"], results[form]):
            np.testing.assert_allclose(plain.numpy(), fast.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(results[form][1].numpy(), (x + y).numpy())


def test_layer_norm_and_gelu():
    x, norm = paddle.randn([2, 5, 60]) * 3, norms.LayerNorm(60, epsilon=1e-5)
    norm.weight.set_value(paddle.randn([60]))
    norm.bias.set_value(paddle.randn([60]))
    for form in ("plain", *NATIVE):
        with paddle.no_grad(), dispatch.use_forms(layer_norm=form, gelu=form):
            expected = F.layer_norm(x, [60], norm.weight, norm.bias, 1e-5)
            np.testing.assert_allclose(norm(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(norms.GELU()(x).numpy(), F.gelu(x).numpy(), rtol=1e-5, atol=1e-6)


def test_swiglu_and_its_gradient():
    values = {}
    for form in ("plain", "fused"):
        gate, up = (paddle.to_tensor(np.random.default_rng(i).normal(size=(3, 7)).astype(np.float32)) for i in (1, 2))
        gate.stop_gradient = up.stop_gradient = False
        with dispatch.use_forms(swiglu=form):
            out = norms.swiglu(gate, up)
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


CARDS = {  # capability, dtype, heads of -> forms of attention, rms_norm, rope
    ((8, 0), "bfloat16", 64): ("flash", "fused", "fused"),
    ((9, 0), "float16", 128): ("flash", "fused", "fused"),
    ((8, 0), "float32", 64): ("plain", "fused", "fused"),
    ((8, 0), "bfloat16", 12): ("plain", "fused", "fused"),  # not a multiple of 8
    ((8, 0), "bfloat16", 264): ("plain", "fused", "fused"),
    ((7, 0), "float16", 64): ("plain", "fused", "fused"),
}


@pytest.mark.parametrize("card", CARDS)
def test_choice_on_cards(card, monkeypatch):
    capability, dtype, head_dim = card
    monkeypatch.setattr(runtime, "cuda_capability", lambda: capability)
    monkeypatch.setattr(dispatch, "_built_with", lambda flag: True)
    choose = dispatch._form.__wrapped__
    chosen = [choose(operation, None, "gpu", dtype, False, head_dim) for operation in ("attention", "rms_norm", "rope")]
    assert tuple(chosen) == CARDS[card]
    assert choose("rms_norm", None, "gpu", dtype, True, None) == "differentiable"
    monkeypatch.setattr(dispatch, "_built_with", lambda flag: False)
    assert choose("attention", None, "gpu", dtype, False, head_dim) == "plain"


@pytest.mark.parametrize(("capability", "form"), [((7, 0), "plain"), ((8, 6), "kernel"), ((8, 7), "plain")])
def test_few_bits_on_cards(capability, form, monkeypatch):
    monkeypatch.setattr(runtime, "cuda_capability", lambda: capability)
    assert dispatch._form.__wrapped__("weight_only", None, "gpu", "float16", False, None) == form


@pytest.mark.parametrize("member", sorted(ROOT.glob("configs/internvl*.json")), ids=lambda file: file.stem)
def test_published_members_take_the_fast_forms(member, monkeypatch):
    """Its heads are such that flash attention takes them, and its linear layers such that few bits can hold them."""
    monkeypatch.setattr(runtime, "cuda_capability", lambda: (8, 0))
    monkeypatch.setattr(dispatch, "_built_with", lambda flag: True)
    config = InternVLChatConfig.from_dict(paddle_config(json.loads(member.read_text())))
    vision, llm = config.vision_config, config.llm_config
    for head_dim in (vision.hidden_size // vision.num_attention_heads, llm.head_dim):
        assert dispatch._form.__wrapped__("attention", None, "gpu", "bfloat16", False, head_dim) == "flash"
    widths = llm.hidden_size, llm.num_key_value_heads * llm.head_dim, llm.intermediate_size
    for inputs, outputs in ((0, 0), (0, 1), (0, 2), (2, 0)):
        assert all(packing_obstacle(widths[inputs], widths[outputs], bits) is None for bits in (8, 4))


# operation -> its form on a CPU with a gradient, without one where there are no kernels, and where there are
ON_A_CPU = {
    "attention": ("chunked", "heads", "native"),
    "decoder_layer": ("modules", "modules", "native"),
    "vision_layer": ("modules", "modules", "native"),
    "rms_norm": ("plain", "fused", "native"),
    "layer_norm": ("plain", "plain", "native"),
    "rope": ("plain", "plain", "native"),
    "swiglu": ("fused", "fused", "native"),
    "gelu": ("plain", "plain", "native"),
    "linear": ("plain", "plain", "native"),
    "weight_only": ("plain", "plain", "native"),
}


@pytest.mark.parametrize(("reason", "column"), [("there is no compiler", 1), ("", 2)])
def test_choice_on_a_cpu(reason, column, monkeypatch):
    monkeypatch.setattr(library, "unavailable_reason", lambda: reason)
    monkeypatch.setattr(dispatch, "_form", dispatch._form.__wrapped__)
    x = paddle.ones([1, 1, 1, 8])
    with paddle.enable_grad():
        assert {operation: dispatch.choose_form(operation, x) for operation in ON_A_CPU} == {
            operation: chosen[0] for operation, chosen in ON_A_CPU.items()
        }
    with paddle.no_grad():
        assert {operation: dispatch.choose_form(operation, x) for operation in ON_A_CPU} == {
            operation: chosen[column] for operation, chosen in ON_A_CPU.items()
        }
        if reason:
            with dispatch.use_forms(gelu="native"), pytest.raises(ValueError, match="no kernels: there is no compiler"):
                norms.gelu(x)


def test_what_is_not_there_is_an_error(monkeypatch):
    x = paddle.ones([1, 1, 1, 8])
    with (
        dispatch.use_forms(attention="flash"),
        pytest.raises(ValueError, match="'flash' can't be taken: it runs on gpu"),
    ):
        attention.attention(x, x, x, causal=True)
    with dispatch.use_forms(rms_norm="fused"), pytest.raises(ValueError, match="it has no gradient"):
        norms.rms_norm(x, x[0, 0, 0], 1e-6)
    with (
        pytest.raises(ValueError, match="conv form 'x' is not known; use one of attention"),
        dispatch.use_forms(conv="x"),
    ):
        pass
    monkeypatch.setattr(runtime, "cuda_capability", lambda: (7, 5))
    flash_form = dispatch.FORMS["attention"][0]
    assert flash_form.lacks("gpu", "float16", False, 64) == "it needs a card of compute capability 8.0"
    monkeypatch.setattr(runtime, "cuda_capability", lambda: (8, 6))
    assert "FLAGS_flash_attn_available is not set" in flash_form.lacks("gpu", "float16", False, 64)


def test_every_form_has_its_function():
    functions = {"attention": attention._FORMS, "rms_norm": norms._RMS_NORM, "rope": rope._FORMS}
    functions |= {"swiglu": norms._SWIGLU, "gelu": norms._GELU, "weight_only": {"kernel", "native", "plain"}}
    functions |= dict.fromkeys(("decoder_layer", "vision_layer"), {"native", "modules"})  # whole_layers, or forward
    functions |= {"linear": {"native", "plain"}, "layer_norm": norms._LAYER_NORM}
    for name, table in functions.items():
        assert {form.name for form in dispatch.FORMS[name]} == set(table), name
