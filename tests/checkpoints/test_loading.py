"""Loading and saving: raw and converted folders are one, everything is strict, what is saved comes back bit for bit."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.safetensors_io import Checkpoint, read_header
from convert.streaming import convert
from paddle_internvl import InternVLChatConfig, InternVLChatModel
from tests.random_checkpoints import random_checkpoint, tiny_config


def weights(model):
    return {name: parameter.astype("float32").numpy() for name, parameter in model.named_parameters()}


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def folder(tmp_path):
    return random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))


def test_raw_and_converted_are_one(models, hf_folders, case, tmp_path):
    convert(hf_folders[case], tmp_path / "pd", to_paddle=True)
    sharded = random_checkpoint(tmp_path / "sharded", tiny_config(case), max_shard_size=60_000)
    for folder in (tmp_path / "pd", sharded):
        model = AutoModel.from_pretrained(str(folder))
        assert same(model, models[case]) and not model.training
        assert model.img_context_token_id == 1002


def test_weights_are_the_files(models, hf_folders):
    raw = load_file(hf_folders["dynamic_gqa"] / "model.safetensors")
    ours = weights(models["dynamic_gqa"])
    np.testing.assert_array_equal(ours["mlp1.1.weight"], raw["mlp1.1.weight"].T)
    np.testing.assert_array_equal(ours["language_model.lm_head.weight"], raw["language_model.output.weight"].T)
    np.testing.assert_array_equal(ours["vision_model.encoder.layers.1.ls2"], raw["vision_model.encoder.layers.1.ls2"])


def test_mapped_weights_are_the_file_itself(models, tmp_path):
    models["dynamic_gqa"].save_pretrained(str(tmp_path))
    model = AutoModel.from_pretrained(str(tmp_path), trainable=True, mapped=True)
    assert same(model, models["dynamic_gqa"])
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    mapped = [range(*(int(end, 16) for end in line[0].split("-"))) for line in maps]
    assert all(any(p.data_ptr() in addresses for addresses in mapped) for p in model.parameters())


def test_loading_writes_nothing(folder):
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    folder.chmod(0o555)
    AutoModel.from_pretrained(str(folder))
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_the_cards_arguments(folder, models):
    model = AutoModel.from_pretrained(
        str(folder), dtype=paddle.bfloat16, low_cpu_mem_usage=True, use_flash_attn=True, trust_remote_code=True,
        load_in_8bit=False, device_map=None,
    ).eval()  # fmt: skip
    assert type(model) is InternVLChatModel and same(model, models["dynamic_gqa"])
    assert model.mlp1[1].weight.dtype == paddle.float32  # a CPU computes in nothing else
    for other in (AutoModelForCausalLM, InternVLChatModel):
        again = other.from_pretrained(str(folder), torch_dtype="bfloat16", use_flash_attn=False, device_map="auto")
        assert same(again, model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"load_in_8bit": True, "load_in_4bit": True}, "exclude each other"),
        ({"group_size": 64}, "group_size needs load_in_8bit=True or load_in_4bit=True"),
        ({"device_map": {"vision_model": 0, "mlp1": 1}}, "device='gpu:0' asked for, but this Paddle sees no CUDA card"),
        ({"dtype": "int8"}, "dtype='int8' is not supported; use one of float32, bfloat16, float16"),
        ({"device": "gpu"}, "this Paddle sees no CUDA card"),
        ({"device": "tpu"}, "device='tpu' is not supported"),
        ({"nonsense": 1}, "'nonsense' is neither an argument nor a field of InternVLChatConfig"),
    ],
)
def test_refused_arguments(folder, arguments, message):
    if {"device", "device_map"} & arguments.keys() and paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle is a CUDA build")
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(str(folder), **arguments)


def test_config_overrides(folder):
    model = AutoModel.from_pretrained(str(folder), select_layer=-2)
    assert model.config.select_layer == -2 and model.select_layer == -2
    with pytest.raises(ValueError, match="select_layer=99 is not one of the 4 hidden states"):
        AutoModel.from_pretrained(str(folder), select_layer=99)


def test_a_given_config_is_copied(folder):
    config = InternVLChatConfig.from_dict(tiny_config("dynamic_gqa"))
    before = config.to_dict()
    model = AutoModel.from_pretrained(str(folder), config=config, select_layer=-2, dtype="float32")
    assert config.to_dict() == before and model.config.select_layer == -2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mlp1.3.bias"), "1 tensors are missing: mlp1.3.bias"),
        (
            lambda w: w.update({"mlp1.9.bias": w["mlp1.3.bias"]}),
            "1 tensors have no rule: mlp1.9.bias in model.safetensors",
        ),
        (
            lambda w: w.update({"mlp1.3.bias": w["mlp1.3.bias"][:5].copy()}),
            r"mlp1.3.bias has shape \[5\], .* means \[64\]",
        ),
    ],
)
def test_strict_on_raw_folders(folder, change, message):
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        AutoModel.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mlp1.3.bias"), "1 parameters have no tensor: mlp1.3.bias"),
        (lambda w: w.update(more=w["mlp1.3.bias"]), "1 tensors have no parameter: more"),
        (
            lambda w: w.update({"mlp1.3.bias": w["mlp1.3.bias"][:5].copy()}),
            r"mlp1.3.bias has shape \[5\], the model \[64\]",
        ),
        (lambda w: w.update({"mlp1.3.bias": np.ones(64, np.int64)}), "mlp1.3.bias is I64 .*only float weights"),
    ],
)
def test_strict_on_converted_folders(folder, tmp_path, change, message):
    convert(folder, tmp_path / "pd", to_paddle=True)
    arrays = load_file(tmp_path / "pd/model.safetensors")
    change(arrays)
    save_file(arrays, tmp_path / "pd/model.safetensors", metadata={"format": "np"})
    with pytest.raises(CheckpointError, match=message):
        AutoModel.from_pretrained(str(tmp_path / "pd"))


@pytest.mark.parametrize("shard", [1 << 40, 200_000])
def test_saved_is_loaded_bit_for_bit(models, case, tmp_path, shard):
    models[case].save_pretrained(str(tmp_path / "saved"), max_shard_size=shard)
    again = AutoModel.from_pretrained(str(tmp_path / "saved"))
    assert same(again, models[case])
    assert (len(Checkpoint(tmp_path / "saved").tensors) > 0) and (shard > 1 << 30) == (
        tmp_path / "saved/model.safetensors"
    ).exists()
    config = models[case].config.to_dict()
    config["llm_config"]["tie_word_embeddings"] = False  # every head here differs from the embedding
    assert again.config.to_dict() == config
    convert(tmp_path / "saved", tmp_path / "hf", to_paddle=False)  # and is a Hugging Face folder again
    assert same(AutoModel.from_pretrained(str(tmp_path / "hf")), models[case])


def test_saving_over_shards_leaves_no_old_ones(models, tmp_path):
    models["dynamic_gqa"].save_pretrained(str(tmp_path), max_shard_size=200_000)
    models["dynamic_gqa"].save_pretrained(str(tmp_path))
    assert [file.name for file in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert same(AutoModel.from_pretrained(str(tmp_path)), models["dynamic_gqa"])


def test_bfloat16_is_saved_as_bfloat16(folder, tmp_path):
    model = AutoModel.from_pretrained(str(folder), trainable=True)
    model.to(dtype="bfloat16")
    model.save_pretrained(str(tmp_path / "saved"))
    tensors, metadata = read_header(tmp_path / "saved/model.safetensors")
    assert {info.dtype for info in tensors.values()} == {"BF16"} and metadata["format"] == "np"
    raw = Checkpoint(tmp_path / "saved").array("mlp1.1.weight").view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(raw.astype(np.float32), model.mlp1[1].weight.astype("float32").numpy())
    assert json.loads((tmp_path / "saved/config.json").read_text())["torch_dtype"] == "bfloat16"
    assert same(AutoModel.from_pretrained(str(tmp_path / "saved")), model)


def test_config_reads_and_writes_upstreams_file(folder, tmp_path):
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    assert type(config) is InternVLChatConfig
    config.save_pretrained(str(tmp_path))
    written, original = json.loads((tmp_path / "config.json").read_text()), tiny_config("dynamic_gqa")
    for part in ("vision_config", "llm_config"):
        assert {name: written[part].get(name) for name in original[part]} == original[part]
    assert written["torch_dtype"] == original["torch_dtype"]
    assert InternVLChatConfig.from_pretrained(str(tmp_path)).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("ps_version",), "v3", "ps_version='v3' is not supported; supported: 'v1', 'v2'"),
        (("select_layer",), 9, "select_layer=9 is not one of the 4 hidden states"),
        (("template",), "chatty", "template='chatty' is not known; known: Hermes-2"),
        (("vision_config", "norm_type"), "batch", "vision_config.norm_type='batch' is not supported"),
        (("vision_config", "num_attention_heads"), 5, "hidden_size=48 is not a multiple of num_attention_heads=5"),
        (("llm_config", "hidden_act"), "relu", "llm_config.hidden_act='relu' is not supported"),
        (("llm_config", "architectures"), ["GPT"], "llm_config.architectures='GPT' is not supported"),
        (("llm_config", "num_key_value_heads"), 3, "num_attention_heads=4 is not a multiple of num_key_value_heads=3"),
        (("llm_config", "rope_scaling"), {"type": "yarn", "factor": 2.0}, "rope_scaling.type='yarn' is not supported"),
        (("llm_config", "rope_scaling"), {"type": "linear", "factor": 0.5}, "factor=0.5: a number of at least 1"),
    ],
)
def test_configs_that_are_not_supported(path, value, message):
    config = tiny_config("dynamic_gqa")
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        InternVLChatModel(InternVLChatConfig(**config))


def test_a_folder_without_tokenizer_still_loads(folder):
    for name in ("tokenizer_config.json", "added_tokens.json"):
        (folder / name).unlink()
    assert AutoModel.from_pretrained(str(folder)).img_context_token_id is None
    shutil.rmtree(folder)


def test_another_device_than_asked_for_is_an_error(monkeypatch):
    from paddle_internvl import runtime
    from paddle_internvl.ops import dispatch

    monkeypatch.setattr(runtime, "cuda_capability", lambda: (7, 0))
    machine = lambda: dispatch.Machine(runtime.cuda_capability(), "", dispatch.FLAGS)  # noqa: E731
    monkeypatch.setattr(dispatch, "this_machine", machine)

    def attention_on_card(dtype):
        return dispatch.choose_for("attention", dispatch.Case("gpu", dtype))

    assert runtime.choose_device() == "gpu" and runtime.choose_device("cuda:1") == "gpu:1"
    assert runtime.choose_dtype(None, "gpu")[0] == "float16" and attention_on_card("float16") == "reference"
    with pytest.raises(ValueError, match="compute capability 8.0"):
        runtime.choose_dtype("bfloat16", "gpu")
    monkeypatch.setattr(runtime, "cuda_capability", lambda: (9, 0))
    assert runtime.choose_dtype(None, "gpu")[0] == "bfloat16" and attention_on_card("bfloat16") == "flash"
    assert runtime.choose_dtype("float16", "gpu")[0] == "float16"
    assert runtime.choose_dtype("bfloat16", "cpu")[0] == "float32"


@pytest.mark.parametrize("kind", ["qwen2", "dynamic_gqa"])
def test_a_head_that_is_absent_is_the_embedding(tmp_path, kind):
    folder = random_checkpoint(tmp_path / "hf", tiny_config(kind))
    arrays = load_file(folder / "model.safetensors")
    head = next(name for name in arrays if name.endswith(("lm_head.weight", "output.weight")))
    present = AutoModel.from_pretrained(str(folder))  # counts, whatever tie_word_embeddings says
    np.testing.assert_array_equal(present.language_model.lm_head.weight.numpy(), arrays.pop(head).T)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    convert(folder, tmp_path / "pd", to_paddle=True)
    for place in (folder, tmp_path / "pd"):
        model = AutoModel.from_pretrained(str(place))
        embedding = model.get_input_embeddings().weight.numpy()
        np.testing.assert_array_equal(model.language_model.lm_head.weight.numpy(), embedding.T)
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    assert load_file(tmp_path / "back/model.safetensors").keys() == arrays.keys()
