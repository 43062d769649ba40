"""Experts in 8 and 4 bits: the same numbers loaded, converted, saved and sharded, and those of weights rounded by
hand."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from convert import CheckpointError
from convert.cli import main as convert_cli
from convert.mappings import rules_for
from convert.quant_config import Quantization
from convert.quant_layout import quantize
from paddle_internvl.models.experts import Experts
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.ops.stacked_linear import QuantizedStackedLinear, StackedLinear
from tests.checkpoints.test_quantization import load_file_raw, logits
from tests.convert.test_quant_layout import LOW
from tests.estimation.measured import parameter_bytes
from tests.estimation.test_weights import counted, needs_kernels
from tests.parallel.threads import run_sharded
from tests.random_checkpoints import random_checkpoint, tiny_config

FORMS = [(8, -1), (4, 64)]  # bits and group size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = tiny_config("qwen3_moe")
    config["llm_config"] |= {"intermediate_size": 128, "moe_intermediate_size": 64, "head_dim": 32}
    return random_checkpoint(tmp_path_factory.mktemp("experts") / "hf", config)


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: f"{form[0]} bits")
def form(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(folder, form):
    bits, group_size = form
    return AutoModel.from_pretrained(str(folder), **{f"load_in_{bits}bit": True}, group_size=group_size)


def low(values: np.ndarray) -> np.ndarray:
    return values.astype(LOW["bfloat16"]).astype(np.float32)


def float_twin(folder, bits, group_size):
    """The float model with every weight of the decoder's blocks but the router's rounded by hand."""
    model = AutoModel.from_pretrained(str(folder), trainable=True)
    for name, layer in model.language_model.model.layers.named_sublayers():
        if not isinstance(layer, (paddle.nn.Linear, StackedLinear)) or name.endswith("mlp.gate"):
            continue
        weight = layer.weight.numpy()
        rounded = []
        for matrix in weight.reshape(-1, *weight.shape[-2:]):
            integers, scales = quantize(low(matrix), bits, group_size, low)
            rounded.append(integers * (scales if group_size == -1 else np.repeat(scales, group_size, axis=0)))
        layer.weight.set_value(np.stack(rounded).reshape(weight.shape))
    return model


def test_every_way_gives_the_same_numbers(folder, loaded, form, tmp_path):
    bits, group_size = form
    router = loaded.language_model.model.layers[1].mlp.gate
    assert isinstance(router, paddle.nn.Linear) and not isinstance(router, QuantizedLinear)
    assert sum(isinstance(layer, QuantizedStackedLinear) for layer in loaded.sublayers()) == 2
    ours, expected = logits(loaded), logits(float_twin(folder, bits, group_size))
    assert np.abs(ours - expected).max() / np.abs(expected).max() < 2e-5
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--group-size", str(group_size)]
    assert convert_cli([*command, "--quantize", f"weight_only_int{bits}"]) == 0
    loaded.save_pretrained(str(tmp_path / "saved"))
    one, other = (load_file_raw(tmp_path / place / "model.safetensors") for place in ("pd", "saved"))
    few = [name for name in one if "quant_" in name]
    assert len([name for name in few if ".experts." in name]) == 4
    assert {name: one[name] for name in few} == {name: other[name] for name in few}
    np.testing.assert_array_equal(logits(AutoModel.from_pretrained(str(tmp_path / "pd"))), ours)


@needs_kernels
def test_memory_is_counted_to_the_byte(folder, loaded, form):
    bits, group_size = form
    if group_size == (-1 if bits == 8 else 64):  # those of load_in_8bit and load_in_4bit
        assert counted(folder, bits=bits, dtype="float32") == parameter_bytes(loaded)


def test_ranks_hold_whole_experts(monkeypatch, folder, loaded, form):
    expected = logits(loaded)

    def work(model):
        with model.process_group.collectives.allowed():
            return logits(model), [
                e.quant_weight.shape[0] for e in model.sublayers() if isinstance(e, QuantizedStackedLinear)
            ]

    quantization = Quantization(f"weight_only_int{form[0]}", form[1])
    for found, held in run_sharded(monkeypatch, folder, 2, work, quantization=quantization):
        assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5
        assert held == [4, 4]


def test_forms(loaded):
    """Those of decode steps on a card give what the sorted tokens give."""
    experts = next(layer for layer in loaded.sublayers() if isinstance(layer, Experts))
    draw = np.random.default_rng(0)
    x = paddle.to_tensor(draw.normal(size=(3, 64)), "float32")
    chosen, weights = paddle.to_tensor([[1, 7], [3, 1], [0, 2]]), paddle.to_tensor(draw.uniform(size=(3, 2)), "float32")
    with paddle.no_grad():
        expected = experts.grouped(x, chosen, weights).numpy()
        for form in (experts.gathered, experts.dense):
            np.testing.assert_allclose(form(x, chosen, weights).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_awq_is_refused():
    config = tiny_config("qwen3_moe")
    config["llm_config"] |= {"moe_intermediate_size": 64, "hidden_size": 64, "intermediate_size": 64, "head_dim": 32}
    config["llm_config"]["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32}
    with pytest.raises(CheckpointError, match=r"experts.0.gate_proj.weight: AWQ of a mixture of experts is not"):
        rules_for(config)
