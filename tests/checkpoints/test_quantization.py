"""Weights in 8 and 4 bits, and AWQ: the same numbers whichever way they are reached, and memory that really falls."""

import json

import numpy as np
import paddle
import pytest
from paddle import nn
from paddlenlp.transformers import AutoModel
from safetensors.numpy import save_file

from convert import CheckpointError
from convert.cli import main as convert_cli
from convert.mappings import rules_for
from convert.quant_config import declared_quantization
from convert.quant_layout import packing_obstacle, quantize
from convert.streaming import convert
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from tests.convert.test_quant_layout import LOW, awq_packed
from tests.families import QUANTIZABLE, quantizable_config
from tests.random_checkpoints import random_checkpoint, random_pixels, tiny_config

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(params=QUANTIZABLE[:2])
def folder(request, tmp_path):
    return random_checkpoint(tmp_path / "hf", quantizable_config(request.param))


def logits(model):
    ids = np.random.default_rng(0).integers(3, 1000, (1, 20))
    ids[0, 2:10] = model.img_context_token_id
    with paddle.no_grad():
        return model(paddle.to_tensor(random_pixels(2, 56)), paddle.to_tensor(ids)).logits.numpy()


def error(ours, expected) -> float:
    return np.abs(ours - expected).max() / np.abs(expected).max()


def block_linears(model):
    return {
        name: layer for name, layer in model.named_sublayers()
        if ".layers." in name and "language_model" in name and name.endswith(LINEARS)
    }  # fmt: skip


def float_twin(folder, bits, group_size, low="bfloat16"):
    """The float model with every block weight rounded by hand and turned back into floats."""
    model = AutoModel.from_pretrained(str(folder), trainable=True)
    for layer in block_linears(model).values():
        weight = layer.weight.numpy().astype(LOW[low]).astype(np.float32)
        if packing_obstacle(*weight.shape, bits, group_size):
            continue
        integers, scales = quantize(weight, bits, group_size, lambda x: x.astype(LOW[low]).astype(np.float32))
        step = scales if group_size == -1 else np.repeat(scales, group_size, axis=0)
        layer.weight.set_value(integers * step)
    return model


FORMS = [(8, -1), (8, 64), (4, 64), (4, -1)]  # bits and group size: all of the first family, one of each other
FORMS_OF = {family: FORMS[i % 4 :: 4] if i else FORMS for i, family in enumerate(QUANTIZABLE)}


@pytest.mark.parametrize(
    ("folder", "bits", "group_size"),
    [(family, *form) for family, forms in FORMS_OF.items() for form in forms],
    indirect=["folder"],
)
def test_every_way_gives_the_same_numbers(folder, tmp_path, bits, group_size):
    loaded = AutoModel.from_pretrained(str(folder), **{f"load_in_{bits}bit": True}, group_size=group_size)
    linears = block_linears(loaded)
    few = [layer for layer in loaded.sublayers() if isinstance(layer, QuantizedLinear)]
    assert len(few) > len(linears) / 2 and set(map(id, few)) <= set(map(id, linears.values()))
    assert isinstance(loaded.language_model.lm_head, nn.Linear) and isinstance(loaded.mlp1[1], nn.Linear)
    expected = logits(float_twin(folder, bits, group_size))
    ours = logits(loaded)
    assert error(ours, expected) < 2e-5
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--group-size", str(group_size)]
    assert convert_cli([*command, "--quantize", f"weight_only_int{bits}"]) == 0
    loaded.save_pretrained(str(tmp_path / "saved"))
    for place in (tmp_path / "pd", tmp_path / "saved"):
        again = AutoModel.from_pretrained(str(place))
        np.testing.assert_array_equal(logits(again), ours)
        assert declared_quantization(json.loads((place / "config.json").read_text())).bits == bits
    one, other = (load_file_raw(place / "model.safetensors") for place in (tmp_path / "pd", tmp_path / "saved"))
    for name in one:
        if "quant_" in name:
            assert one[name] == other[name], name
    with pytest.raises(CheckpointError, match="can't be turned back into float weights"):
        convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    with pytest.raises(CheckpointError, match=f"quantised already .weight_only_int{bits}.; load it as it is"):
        AutoModel.from_pretrained(str(tmp_path / "pd"), load_in_8bit=True)


@pytest.mark.parametrize(("bits", "tied"), [(8, False), (4, True)])
def test_quantized_head(tmp_path, bits, tied):
    """The head in few bits: in memory, saved, and converted in a folder, of any number of columns; also a tied one."""
    config = quantizable_config(QUANTIZABLE[0])
    config["llm_config"].update(vocab_size=config["llm_config"]["vocab_size"] + 3, tie_word_embeddings=tied)
    folder = random_checkpoint(tmp_path / "hf", config)
    float_head = AutoModel.from_pretrained(str(folder), trainable=True).language_model.lm_head
    loaded = AutoModel.from_pretrained(str(folder), **{f"load_in_{bits}bit": True}, quantize_head=True)
    head = loaded.language_model.lm_head
    assert isinstance(head, QuantizedLinear) and head.bits == bits
    rows = -1 if bits == 8 else 64
    rounded = float_head.weight.numpy().astype(LOW["bfloat16"]).astype(np.float32)
    integers, scales = quantize(rounded, bits, rows, lambda x: x.astype(LOW["bfloat16"]).astype(np.float32))
    hidden = np.random.default_rng(0).normal(size=(3, rounded.shape[0])).astype(np.float32)
    with paddle.no_grad():
        found = head(paddle.to_tensor(hidden)).numpy()
    step = scales if rows == -1 else np.repeat(scales, rows, axis=0)
    np.testing.assert_allclose(found, hidden @ (integers * step), rtol=1e-4, atol=1e-4)
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--quantize", f"weight_only_int{bits}"]
    assert convert_cli([*command, "--group-size", str(rows), "--quantize-head"]) == 0
    loaded.save_pretrained(str(tmp_path / "saved"))
    for place in (tmp_path / "pd", tmp_path / "saved"):
        assert declared_quantization(json.loads((place / "config.json").read_text())).head
        again = AutoModel.from_pretrained(str(place))
        assert isinstance(again.language_model.lm_head, QuantizedLinear)
        np.testing.assert_array_equal(logits(again), logits(loaded))
    with pytest.raises(ValueError, match="quantize_head needs load_in_8bit"):
        AutoModel.from_pretrained(str(folder), quantize_head=True)


def load_file_raw(file):
    """name -> (dtype, shape, bytes)"""
    from convert.safetensors_io import Checkpoint

    checkpoint = Checkpoint(file.parent)
    return {
        name: (info.dtype, info.shape, checkpoint.array(name).tobytes()) for name, info in checkpoint.tensors.items()
    }


def test_memory_falls(folder):
    def nbytes(**options):
        model = AutoModel.from_pretrained(str(folder), **options)
        return sum(
            tensor.size * tensor.element_size()
            for layer in block_linears(model).values()
            for tensor in (layer.weight if isinstance(layer, nn.Linear) else layer.quant_weight,)
        )

    floats = nbytes(dtype="float32")
    few = [nbytes(load_in_8bit=True), nbytes(load_in_4bit=True)]
    assert floats == 4 * few[0] == 8 * few[1]


def test_few_bits_chat_like_any_other(folder, tokenizer):
    model = AutoModel.from_pretrained(str(folder), load_in_8bit=True)
    pixels = paddle.to_tensor(random_pixels(1, 56))
    answer = model.chat(tokenizer, pixels, "What?", {"max_new_tokens": 5})
    float_model = AutoModel.from_pretrained(str(folder))
    assert isinstance(answer, str) and len(float_model.chat(tokenizer, pixels, "What?", {"max_new_tokens": 5})) > 0


def test_a_weight_that_cannot_be_packed_stays_float(tmp_path):
    config = quantizable_config("qwen2")
    config["llm_config"]["intermediate_size"] = 72  # inputs of down_proj: no multiple of 64
    source = random_checkpoint(tmp_path / "hf", config)
    model = AutoModel.from_pretrained(str(source), load_in_8bit=True)
    kinds = {
        name.rpartition(".")[2]: isinstance(layer, QuantizedLinear) for name, layer in block_linears(model).items()
    }
    assert kinds == {name: name != "down_proj" for name in LINEARS}
    convert_cli(["hf2pd", "--src", str(source), "--dst", str(tmp_path / "pd"), "--quantize", "weight_only_int8"])
    np.testing.assert_array_equal(logits(AutoModel.from_pretrained(str(tmp_path / "pd"))), logits(model))


def test_nothing_to_quantise_is_refused(tmp_path, capsys):
    source = random_checkpoint(tmp_path / "hf", tiny_config("qwen2"))  # 56 inputs, 72 inner features
    with pytest.raises(CheckpointError, match="no weight can be quantised: .*56 inputs are not a multiple of 64"):
        AutoModel.from_pretrained(str(source), load_in_8bit=True)
    command = ["hf2pd", "--src", str(source), "--dst", str(tmp_path / "pd"), "--quantize", "weight_only_int8"]
    assert convert_cli(command) == 2
    error = capsys.readouterr().err
    assert "no weight can be quantised: language_model.model.layers.0.self_attn.q_proj.weight: its 56 inputs" in error
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("bits", [8, 4])
def test_other_group_sizes_are_refused(folder, tmp_path, bits, capsys):
    with pytest.raises(CheckpointError, match=r"group_size 32 is none of -1, 64, 128 \(-1: all inputs\)"):
        AutoModel.from_pretrained(str(folder), **{f"load_in_{bits}bit": True}, group_size=32)
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--group-size", "32"]
    with pytest.raises(SystemExit) as raised:
        convert_cli([*command, "--quantize", f"weight_only_int{bits}"])
    assert raised.value.code == 2 and "--group-size: invalid choice: 32" in capsys.readouterr().err


def awq_folder(folder, target, group_size, symmetric=False):
    """The float folder with block weights as AWQ writes them; and what they mean, by upstream name."""
    target.mkdir()
    rng = np.random.default_rng(0)
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = "float16"
    quantization = {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": group_size, "zero_point": True}
    config["llm_config"]["quantization_config"] = quantization
    floats = {
        name: rng.normal(0, 0.3, rule.shapes[i]).astype(np.float16)
        for rule in rules_for(json.loads((folder / "config.json").read_text()))
        for i, name in enumerate(rule.upstream) if rule.shapes
    }  # fmt: skip
    means, packed = {}, {}
    for rule in rules_for(config):
        for name in rule.upstream:
            if not name.endswith(".qweight"):
                continue
            stem = name.removesuffix("qweight")
            (k, columns) = rule.shapes[0]
            n = 8 * columns
            q, zero = rng.integers(0, 16, (k, n)), rng.integers(0, 16, (k // group_size, n))
            if symmetric:
                zero[:] = 8
            scales = rng.uniform(0.01, 0.05, zero.shape).astype(np.float16)
            packed[name], packed[stem + "scales"] = awq_packed(q).view(np.int32), scales
            packed[stem + "qzeros"] = awq_packed(zero).view(np.int32)
            step = np.repeat(scales.astype(np.float32), group_size, axis=0)
            means[stem + "weight"] = ((q - np.repeat(zero, group_size, axis=0)) * step).T.astype(np.float32)
    for name in means:
        floats.pop(name)
    save_file({**floats, **packed}, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            (target / file.name).write_bytes(file.read_bytes())
    return target, means, floats


@pytest.mark.parametrize(
    ("folder", "group_size"), [(QUANTIZABLE[0], 32), *((family, 64) for family in QUANTIZABLE)], indirect=["folder"]
)
def test_awq(folder, tmp_path, group_size):
    awq, means, floats = awq_folder(folder, tmp_path / "awq", group_size)
    model = AutoModel.from_pretrained(str(awq))
    plain = tmp_path / "plain"
    plain.mkdir()
    whole = {**{name: array.astype(np.float32) for name, array in floats.items()}, **means}
    save_file({name: np.ascontiguousarray(array) for name, array in whole.items()}, plain / "model.safetensors")
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            (plain / file.name).write_bytes(file.read_bytes())
    expected = logits(AutoModel.from_pretrained(str(plain)))
    assert error(logits(model), expected) < 2e-5
    convert(awq, tmp_path / "pd", to_paddle=True, max_shard_size=100_000)
    np.testing.assert_array_equal(logits(AutoModel.from_pretrained(str(tmp_path / "pd"))), logits(model))
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    assert load_file_raw(tmp_path / "back/model.safetensors") == load_file_raw(awq / "model.safetensors")
    model.save_pretrained(str(tmp_path / "saved"))  # dequantised: floats, and said to be
    assert declared_quantization(json.loads((tmp_path / "saved/config.json").read_text())) is None
    saved, held = AutoModel.from_pretrained(str(tmp_path / "saved")), block_linears(model)
    for name, layer in block_linears(saved).items():
        np.testing.assert_array_equal(layer.weight.numpy(), held[name].dequantized().numpy(), err_msg=name)
    # AMX tiles sum integers in another order than floats
    assert error(logits(saved), logits(model)) < 2e-5 and error(logits(saved), expected) < 2e-5


def test_awq_declared_at_the_top(tmp_path):
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("qwen2"))
    awq, _, _ = awq_folder(folder, tmp_path / "awq", 32)
    expected = logits(AutoModel.from_pretrained(str(awq)))
    config = json.loads((awq / "config.json").read_text())
    config["quantization_config"] = config["llm_config"].pop("quantization_config")
    (awq / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(logits(AutoModel.from_pretrained(str(awq))), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"quant_method": "gptq"},
            r"quant_method='gptq' is not supported; supported: awq \(gemm, 4 bit\), weight_only",
        ),
        ({"quant_method": "bitsandbytes"}, "quant_method='bitsandbytes' is not supported"),
        ({"quant_method": "awq", "bits": 8, "group_size": 64}, "AWQ with bits=8, version='gemm', group_size=64 is not"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"}, "version='gemv'"),
        ({"quant_method": "awq", "bits": 4, "group_size": 16}, "group_size=16"),
    ],
)
def test_other_methods_are_refused(tmp_path, fields, message):
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("qwen2"))
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"]["quantization_config"] = fields
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        AutoModel.from_pretrained(str(folder))
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "pd", to_paddle=True)


def test_quantising_twice_is_refused(tmp_path):
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("qwen2"))
    awq, _, _ = awq_folder(folder, tmp_path / "awq", 32)
    arguments = ["hf2pd", "--src", str(awq), "--dst", str(tmp_path / "pd"), "--quantize", "weight_only_int8"]
    assert convert_cli(arguments) == 2 and not (tmp_path / "pd").exists()
