"""Estimates are within 15 % of the measured peak: the allocator's and, with kernels, their scratch memory."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest
from paddlenlp.transformers import AutoModel

from convert.folder import read_config
from paddle_internvl.estimation import Plan, activations, estimate
from paddle_internvl.kernels import library
from paddle_internvl.ops import dispatch
from tests.estimation.measured import allocator_peak
from tests.random_checkpoints import TOKENIZER

# A CPU without kernels, where weights become float32 and scores are kept.
WITHOUT_KERNELS = {
    "attention": "blockwise", "layers": "modules", "rope": "reference", "swiglu": "fused", "rms_norm": "fused",
    "layer_norm": "reference", "gelu": "reference", "linear": "reference", "weight_only_linear": "reference",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundled():
    with dispatch.force(**WITHOUT_KERNELS):  # preparation chooses layers too
        return AutoModel.from_pretrained(str(TOKENIZER), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("tiles", "context", "batch"), [(0, 64, 1), (0, 768, 1), (0, 256, 6), (1, 256, 1), (4, 512, 1), (2, 512, 3)]
)
def test_without_kernels(bundled, tiles, context, batch):
    estimated = estimate(read_config(TOKENIZER), Plan(batch, context, tiles, device="cpu", kernels=False)).total
    with dispatch.force(**WITHOUT_KERNELS):
        assert 0.85 < allocator_peak(bundled, tiles, context, batch) / estimated < 1.15


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_without_kernels(bits):
    estimated = estimate(read_config(TOKENIZER), Plan(1, 256, 0, bits=bits, device="cpu", kernels=False)).total
    with dispatch.force(**WITHOUT_KERNELS):
        model = AutoModel.from_pretrained(str(TOKENIZER), dtype="float32", device="cpu", **{f"load_in_{bits}bit": True})
        assert 0.85 < allocator_peak(model, 0, 256, 1) / estimated < 1.15


@pytest.mark.parametrize(("tiles", "context", "batch"), [(0, 768, 1), (1, 256, 1), (4, 512, 2)])
def test_with_kernels(tiles, context, batch, monkeypatch):
    """In a new thread, whose scratch memory is its own."""
    if library.unavailable_reason():
        pytest.skip(library.unavailable_reason())
    model = AutoModel.from_pretrained(str(TOKENIZER), device="cpu")
    functions = library.functions()
    functions.internvl_scratch_bytes.restype = ctypes.c_size_t
    threads, before = functions.internvl_threads(), functions.internvl_scratch_bytes()

    def measured() -> int:
        peak = allocator_peak(model, tiles, context, batch)
        return peak + functions.internvl_scratch_bytes() - before

    monkeypatch.setattr(activations, "cpu_threads", lambda: 1)
    functions.internvl_set_threads(1)
    try:
        with ThreadPoolExecutor(1) as pool:
            peak = pool.submit(measured).result()
    finally:
        functions.internvl_set_threads(threads)
    estimated = estimate(read_config(TOKENIZER), Plan(batch, context, tiles, device="cpu")).total
    assert 0.85 < peak / estimated < 1.15


def test_kernels_keep_no_scores():
    config = read_config(TOKENIZER)
    with_kernels, without = (estimate(config, Plan(context=4096, device="cpu", kernels=on)) for on in (True, False))
    assert with_kernels.activations < without.activations and with_kernels.kv_cache == without.kv_cache
