"""Sharded models on ranks that are threads: equal to the whole model, from every layout, float and quantized."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from safetensors.numpy import load_file, save_file

from convert.cli import main as convert_cli
from convert.quant_config import Quantization
from convert.safetensors_io import Checkpoint
from convert.streaming import convert
from paddle_internvl import GenerationConfig
from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.engine.request import Prompt
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.parallel.sharded_layers import extract_feature
from paddle_internvl.parallel.shards import ShardPlan, ShardSpec
from tests.checkpoints.test_standalone import part
from tests.families import CASES, quantizable_config, shardable_config
from tests.parallel.threads import logits, run_sharded
from tests.random_checkpoints import random_checkpoint, random_pixels, tiny_config


def prompt(model) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [3, 3, S, S] and ids [1, 24] with their visual tokens."""
    ids = np.random.default_rng(0).integers(3, 1000, (1, 24))
    ids[0, 2 : 2 + 3 * model.num_image_token] = 1002
    return random_pixels(3, model.config.tile_side), ids


def prompt_logits(model) -> np.ndarray:
    return logits(model, *map(paddle.to_tensor, prompt(model))).numpy()


def sampled_ids(model) -> tuple[int, ...]:
    """Tokens that an engine samples."""
    pixels, ids = prompt(model)
    config = GenerationConfig(max_new_tokens=8, do_sample=True, top_k=20, seed=3)
    generation = BatchGeneration(model, model.tokenizer, [Prompt(ids[0].tolist(), [pixels], None)], config)
    list(generation)
    return generation.responses()[0].token_ids


def plan_of(config: dict, rank: int, size: int) -> ShardPlan:
    return ShardPlan.of(config["llm_config"], rank, size)


def num_parameters(model) -> int:
    return sum(p.size for p in model.language_model.parameters())


def num_quantized(model) -> int:
    return sum(isinstance(layer, QuantizedLinear) for layer in model.sublayers())


@pytest.mark.parametrize(("case", "size"), [*((case, 2) for case in CASES), ("qwen2", 4), ("phi3_su", 4)])
def test_equal_to_the_whole_model(monkeypatch, tmp_path, case, size):
    config = shardable_config(case)
    folder = random_checkpoint(tmp_path / "hf", config)
    whole = AutoModel.from_pretrained(str(folder))
    expected, tokens = prompt_logits(whole), sampled_ids(whole)
    places = [folder]
    if size == 2:
        convert(folder, tmp_path / "pd", to_paddle=True)
        places.append(tmp_path / "pd")

    def work(model):
        return prompt_logits(model), sampled_ids(model), num_parameters(model)

    for place in places:
        for found, sampled, held in run_sharded(monkeypatch, place, size, work):
            assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5
            assert sampled == tokens
            assert held < 0.8 * num_parameters(whole) if size == 4 else held < num_parameters(whole)


@pytest.mark.parametrize(
    ("case", "bits", "group_size"),
    [("dynamic_gqa", 8, -1), ("biased_v1", 4, -1), ("phi3_su", 4, 64)],
)  # fmt: skip
def test_quantized(monkeypatch, tmp_path, case, bits, group_size):
    """Quantized while loading, and converted: every shard is a part of the same quantized weights."""
    config = quantizable_config(case)
    config["llm_config"].update(hidden_size=128, intermediate_size=256, num_attention_heads=4)
    if "short_factor" in (config["llm_config"].get("rope_scaling") or {}):
        config["llm_config"]["rope_scaling"].update(short_factor=[1.0] * 16, long_factor=[2.0] * 16)
    folder = random_checkpoint(tmp_path / "hf", config)
    options = {f"load_in_{bits}bit": True, "group_size": group_size}
    expected = prompt_logits(AutoModel.from_pretrained(str(folder), **options))
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--group-size", str(group_size)]
    assert convert_cli([*command, "--quantize", f"weight_only_int{bits}"]) == 0
    while_loading = Quantization(f"weight_only_int{bits}", group_size)

    def work(model):
        return prompt_logits(model), num_quantized(model)

    for place, quantization in ((folder, while_loading), (tmp_path / "pd", None)):
        for found, quantized in run_sharded(monkeypatch, place, 2, work, quantization=quantization):
            assert np.abs(found - expected).max() / np.abs(expected).max() < 2e-5
            assert quantized > 0


def test_shards_that_no_kernel_takes_are_floats(monkeypatch, tmp_path):
    """o_proj's 64 inputs make 32 on each of two ranks, which is not a multiple of 64: the same numbers, as floats."""
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("llama"))
    whole = AutoModel.from_pretrained(str(folder), load_in_8bit=True)
    expected, quantization = prompt_logits(whole), Quantization("weight_only_int8", -1)
    ranks = run_sharded(
        monkeypatch, folder, 2, lambda m: (prompt_logits(m), num_quantized(m)), quantization=quantization
    )  # fmt: skip
    for found, quantized in ranks:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        assert 0 < quantized < num_quantized(whole)


def test_a_tied_head(monkeypatch, tmp_path):
    folder = random_checkpoint(tmp_path / "hf", tiny_config("llama"))
    arrays = load_file(folder / "model.safetensors")
    arrays.pop("language_model.lm_head.weight")
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    expected = prompt_logits(AutoModel.from_pretrained(str(folder)))
    for found in run_sharded(monkeypatch, folder, 2, prompt_logits):
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_every_rank_computes_its_share_of_the_tiles(monkeypatch, hf_folders, models, tiles):
    pixels = paddle.to_tensor(random_pixels(tiles, 56))
    computed: list[int] = []

    def work(model):
        model.vision_model.embeddings.register_forward_pre_hook(lambda _, x: computed.append(x[0].shape[0]))
        with model.process_group.collectives.allowed():
            return extract_feature(model, pixels, model.process_group).numpy()

    with paddle.no_grad():
        expected = models["llama"].extract_feature(pixels).numpy()
    for found in run_sharded(monkeypatch, hf_folders["llama"], 2, work):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert sum(computed) == tiles


class RecordedArray(np.ndarray):
    """An array that records the sizes of the parts taken of it."""

    sizes: list

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.sizes.append(part.size)
        return part

    def __array_finalize__(self, other):
        self.sizes = getattr(other, "sizes", [])


@pytest.mark.parametrize("layout", ["hf", "pd"])
def test_a_rank_reads_its_shard_only(tmp_path, layout):
    config = tiny_config("dynamic_gqa")
    folder = random_checkpoint(tmp_path / "hf", config)
    if layout == "pd":
        convert(folder, tmp_path / "pd", to_paddle=True)
    checkpoint = Checkpoint(tmp_path / layout)
    read, sizes = checkpoint.array, []

    def recorded(source):
        array = read(source).view(RecordedArray)
        array.sizes = sizes
        return array

    checkpoint.array = recorded
    view = CheckpointView(checkpoint, json.loads((folder / "config.json").read_text()))
    plan = plan_of(config, 1, 2)
    for name in view.outputs:
        shard = plan.shard_of(name)
        if shard is None or not name.startswith("language_model."):
            continue
        whole = view.array(name)
        sizes.clear()
        held = view.array(name, cut=shard)
        index = [slice(None)] * whole.ndim
        index[shard.axis] = slice(shard.start, shard.stop)
        filled = [slice(None)] * whole.ndim
        filled[shard.axis] = slice(0, shard.stop - shard.start)
        np.testing.assert_array_equal(held[tuple(filled)], whole[tuple(index)])
        assert max(sizes) <= held.size
    padded = view.array("mlp1.1.weight", cut=ShardSpec(1, 3, 9, 8, 9))
    np.testing.assert_array_equal(padded[:, :6], view.array("mlp1.1.weight")[:, 3:9])
    assert padded.shape[1] == 8 and not padded[:, 6:].any()


def test_a_tensor_that_does_not_fit_the_whole_model_is_refused(monkeypatch, tmp_path):
    folder = random_checkpoint(tmp_path / "hf", tiny_config("llama"))
    convert(folder, tmp_path / "pd", to_paddle=True)
    arrays = load_file(tmp_path / "pd/model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    arrays[name] = arrays[name][:, :-2].copy()
    save_file(arrays, tmp_path / "pd/model.safetensors", metadata={"format": "np"})
    with pytest.raises(ValueError, match=r"up_proj.weight has shape \[64, 110\], the model \[64, 112\]"):
        run_sharded(monkeypatch, tmp_path / "pd", 2, prompt_logits)


@pytest.mark.parametrize(
    ("prefix", "part_of_config", "name"),
    [("language_model.", "llm_config", "internlm2"), ("vision_model.", "vision_config", "intern_vit_6b")],
)
def test_a_part_alone_is_refused(hf_folders, tmp_path, prefix, part_of_config, name):
    config = tiny_config("dynamic_gqa")[part_of_config]
    folder = part(hf_folders, "dynamic_gqa", prefix, config, tmp_path / "part")
    with pytest.raises(ValueError, match=f"is for InternVL chat models, not for a {name} alone"):
        AutoModel.from_pretrained(str(folder), tensor_parallel_degree=2)
