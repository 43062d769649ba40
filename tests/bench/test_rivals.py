"""OpenVINO's graphs and GGUF files of a tiny model: what the rivals compute is what transformers computes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from convert.safetensors_io import Checkpoint
from paddle_internvl.bench.random_checkpoint import shallow, write_random
from tests.random_checkpoints import TINY


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def folder(request, tmp_path_factory) -> Path:
    config = shallow(json.loads((TINY / f"{request.param}.json").read_text()), 1) | {"torch_dtype": "bfloat16"}
    return write_random(tmp_path_factory.mktemp(request.param) / "hf", config)


STAGES = {
    "vision": (("vision", {"tiles": 2}), ("projector", {"tiles": 2})),
    "language": (("prefill", {"length": 9}), ("decode", {"length": 5, "tokens": 3})),
}


@pytest.mark.parametrize("part", STAGES)
def test_openvino_computes_what_torch_computes(folder, part):
    pytest.importorskip("openvino", reason="openvino, of the extra rivals, is not installed")
    pytest.importorskip("torch", reason="torch, of the extra bench, is not installed")
    from paddle_internvl.bench.reference import Reference
    from paddle_internvl.bench.rivals.openvino_side import OpenVINO

    sides = {"torch": Reference("cpu"), "float32": OpenVINO(), "int8": OpenVINO()}
    for name, side in sides.items():
        side.load(folder, part, **({} if name == "torch" else {"precision": name}))
    for kind, numbers in STAGES[part]:
        outputs = {name: side.array(side.prepare(kind, **numbers)()) for name, side in sides.items()}
        size = np.abs(outputs["torch"]).max()
        assert np.abs(outputs["float32"] - outputs["torch"]).max() < 1e-5 * size
        assert np.abs(outputs["int8"] - outputs["torch"]).max() < 0.2 * size


def test_fields_of_a_gguf_file(folder, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra rivals, is not installed")
    from paddle_internvl.bench.rivals.gguf_file import write_bfloat16

    llm = json.loads((folder / "config.json").read_text())["llm_config"]
    read = gguf.GGUFReader(write_bfloat16(folder, tmp_path / "bf16.gguf"))
    architecture = read.fields["general.architecture"].contents()
    assert architecture == llm["model_type"]
    for field, name in (("block_count", "num_hidden_layers"), ("attention.head_count_kv", "num_key_value_heads")):
        assert read.fields[f"{architecture}.{field}"].contents() == llm[name]
    tensors = {tensor.name: tensor for tensor in read.tensors}
    assert Counter(name.split(".")[0] for name in tensors)["token_embd"] == 1 and "blk.0.attn_q.weight" in tensors
    assert list(tensors["output.weight"].shape) == [llm["hidden_size"], llm["vocab_size"]]
    table = tensors["token_embd.weight"]
    assert table.tensor_type == gguf.GGMLQuantizationType.BF16
    halves = np.ascontiguousarray(table.data).view(np.uint16).reshape(llm["vocab_size"], -1)
    assert (halves == Checkpoint(folder).array("language_model.model.embed_tokens.weight")).all()


@pytest.fixture(scope="module")
def experts(tmp_path_factory) -> Path:
    """A random model whose layers all have experts, as the published ones'; 32 a row, as llama.cpp's blocks."""
    config = json.loads((TINY / "qwen3_moe.json").read_text())
    config["llm_config"] |= {"mlp_only_layers": [], "moe_intermediate_size": 64, "head_dim": 32}
    return write_random(tmp_path_factory.mktemp("moe") / "hf", shallow(config, 2) | {"torch_dtype": "bfloat16"})


def test_experts_of_a_gguf_file(experts, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra rivals, is not installed")
    from paddle_internvl.bench.rivals.gguf_file import write_bfloat16

    read = gguf.GGUFReader(write_bfloat16(experts, tmp_path / "bf16.gguf"))
    tensors = {tensor.name: tensor for tensor in read.tensors}
    checkpoint = Checkpoint(experts)
    for ours, theirs in (("gate_proj", "ffn_gate_exps"), ("up_proj", "ffn_up_exps"), ("down_proj", "ffn_down_exps")):
        stacked = np.ascontiguousarray(tensors[f"blk.1.{theirs}.weight"].data).view(np.uint16)
        for expert in (0, 7):
            wanted = checkpoint.array(f"language_model.model.layers.1.mlp.experts.{expert}.{ours}.weight")
            assert (stacked.reshape(8, *wanted.shape)[expert] == wanted).all()
    router = checkpoint.array("language_model.model.layers.1.mlp.gate.weight")
    assert (np.asarray(tensors["blk.1.ffn_gate_inp.weight"].data).view(np.uint32) >> 16 == router).all()


def test_a_layer_without_experts_among_experts_is_refused(tmp_path):
    pytest.importorskip("gguf", reason="gguf, of the extra rivals, is not installed")
    from paddle_internvl.bench.rivals.gguf_file import write_bfloat16

    config = json.loads((TINY / "qwen3_moe.json").read_text())
    with pytest.raises(ValueError, match="layers without experts beside layers with experts"):
        write_bfloat16(write_random(tmp_path / "hf", config), tmp_path / "bf16.gguf")


def test_llama_cpp_computes_the_experts_that_ours_computes(experts, tmp_path):
    pytest.importorskip("gguf", reason="gguf, of the extra rivals, is not installed")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python, of the extra rivals, is not installed")
    from paddle_internvl.bench.ours import Ours
    from paddle_internvl.bench.rivals.gguf_file import write
    from paddle_internvl.bench.rivals.llama_cpp_side import LlamaCpp

    write(experts, tmp_path, ["bf16"])
    sides = {Ours("cpu"): (experts, {}), LlamaCpp(): (tmp_path, {"kind": "bf16"})}
    for kind, numbers in STAGES["language"]:
        outputs = []
        for side, (folder, options) in sides.items():
            side.load(folder, "all", **options)
            outputs.append(side.array(side.prepare(kind, **numbers)()).reshape(-1))
        assert np.abs(outputs[0] - outputs[1]).max() < 0.02 * np.abs(outputs[0]).max()
