"""Weights are counted to the byte: in every storage form, beside the parameters and buffers of a loaded model."""

import json

import pytest
from paddlenlp.transformers import AutoModel

from convert.folder import read_config
from convert.mappings import paddle_config
from paddle_internvl.estimation import Plan, estimate
from paddle_internvl.kernels import library
from tests.checkpoints.test_quantization import awq_folder
from tests.estimation.measured import parameter_bytes
from tests.families import CASES, quantizable_config
from tests.random_checkpoints import ROOT, random_checkpoint, tiny_config

needs_kernels = pytest.mark.skipif(bool(library.unavailable_reason()), reason="there are no kernels")


def counted(folder, **plan) -> int:
    fields = {"context": 64, "tiles": 0, "device": "cpu", **plan}
    return estimate(paddle_config(read_config(folder)), Plan(**fields)).weights


@pytest.mark.parametrize("case", CASES)
def test_floats(models, case):
    numbers = sum(parameter.size for parameter in models[case].parameters())
    plan = Plan(context=64, tiles=0)
    assert estimate(tiny_config(case), plan).weights == 2 * numbers
    assert estimate(tiny_config(case), Plan(context=64, tiles=0, device="cpu", kernels=False)).weights == 4 * numbers


@needs_kernels
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_weights_that_the_kernels_take(tmp_path, case):
    folder = random_checkpoint(tmp_path / "hf", {**tiny_config(case), "torch_dtype": "bfloat16"})
    assert counted(folder) == parameter_bytes(AutoModel.from_pretrained(str(folder), device="cpu"))


@needs_kernels
@pytest.mark.parametrize(("bits", "options"), [(8, {"int8_activations": True}), (4, {"quantize_head": True})])
def test_loaded_in_few_bits(tmp_path, bits, options):
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("qwen2"))
    for more in ({}, options):
        model = AutoModel.from_pretrained(str(folder), device="cpu", **{f"load_in_{bits}bit": True}, **more)
        assert counted(folder, bits=bits, dtype="float32", **more) == parameter_bytes(model)


@needs_kernels
def test_awq_that_no_packed_layout_takes(tmp_path):
    """Groups of 32 are not among Paddle's; the kernels take AWQ's weights as they are."""
    awq, _, _ = awq_folder(random_checkpoint(tmp_path / "hf", quantizable_config("qwen2")), tmp_path / "awq", 32)
    assert counted(awq, dtype="float16") == parameter_bytes(AutoModel.from_pretrained(str(awq), device="cpu"))


def with_awq(config: dict) -> dict:
    fields = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    return {**config, "llm_config": {**config["llm_config"], "quantization_config": fields}}


def test_awq_is_packed_where_a_kernel_takes_it():
    floats = json.loads((ROOT / "configs/internvl2_5-8b.json").read_text())
    awq = with_awq(floats)
    half, whole = Plan(dtype="float16"), Plan(device="cpu", dtype="float32")
    assert estimate(awq, half).weights < 0.45 * estimate(floats, half).weights
    assert estimate(awq, whole).weights < 0.3 * estimate(floats, whole).weights
    # Scales would be rounded to bfloat16; Paddle has no CPU kernel; ranks of a CPU shard floats.
    for plan in (Plan(dtype="bfloat16"), Plan(device="cpu", kernels=False), Plan(device="cpu", dtype="float32", tp=2)):
        assert estimate(awq, plan).weights == estimate(floats, plan).weights


def test_ranks_hold_a_share_of_the_decoder():
    config = json.loads((ROOT / "configs/internvl2_5-78b.json").read_text())
    whole, shard = (estimate(config, Plan(tp=n)) for n in (1, 4))
    tower = 2 * 5_903_390_400  # upstream's InternViT-6B in bfloat16, roughly; every rank holds the projector too
    assert 0.24 < (shard.weights - tower) / (whole.weights - tower) < 0.27
    assert shard.kv_cache == whole.kv_cache / 4 and shard.activations < whole.activations
