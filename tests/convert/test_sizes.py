"""Sizes of a model: against the published models' numbers, and against the shapes of a built model."""

import json
from math import prod

import pytest

from convert import CheckpointError
from convert.mappings import rules_for
from convert.sizes import decoder_sizes, tile_sizes
from convert.unused_fields import unused_fields
from tests.random_checkpoints import ROOT, tiny_config

PUBLISHED = {  # config -> H, K, E, numbers of the KV cache for a token
    "internvl2-1b": (14, 2, 64, 24 * 2 * 128),
    "internvl2-2b": (16, 8, 128, 24 * 2 * 1024),
    "internvl2-4b": (32, 32, 96, 32 * 2 * 3072),
    "internvl2_5-78b": (64, 8, 128, 80 * 2 * 1024),
    "internvl3_5-1b": (16, 8, 128, 28 * 2 * 1024),
    "internvl3_5-38b": (64, 8, 128, 64 * 2 * 1024),
    "internvl3_5-30b-a3b": (32, 4, 128, 48 * 2 * 512),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_members(name):
    config = json.loads((ROOT / f"configs/{name}.json").read_text())
    sizes = decoder_sizes(config["llm_config"])
    assert (sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.cached_per_token) == PUBLISHED[name]
    assert sizes.qk_norm == name.startswith("internvl3_5")
    tile = tile_sizes(config)
    assert (tile.side, tile.patches, tile.tokens) == (448, 1024, 256)


def test_internvl3_9b_has_the_tensors_of_the_released_file():
    """685 tensors of 18.28 GB in bfloat16; the layers are InternLM2's."""
    config = json.loads((ROOT / "configs/internvl3-9b.json").read_text())
    shapes = [shape for rule in rules_for(config) for shape in rule.shapes]
    assert (len(shapes), round(2 * sum(map(prod, shapes)) / 1e9, 2)) == (685, 18.28)


def test_a_head_dim_that_is_not_width_over_heads():
    llm = {**tiny_config("llama")["llm_config"], "head_dim": 24, "qk_norm": True, "attention_bias": True}
    sizes = decoder_sizes(llm)
    assert (sizes.query_width, sizes.kv_width) == (8 * 24, 4 * 24) and sizes.width == 64
    config = {**tiny_config("llama"), "llm_config": llm}
    shapes = {name: shape for rule in rules_for(config) for name, shape in zip(rule.upstream, rule.shapes)}
    layer = "language_model.model.layers.2.self_attn."
    assert {name.removeprefix(layer): shape for name, shape in shapes.items() if name.startswith(layer)} == {
        "q_proj.weight": (192, 64), "k_proj.weight": (96, 64), "v_proj.weight": (96, 64), "o_proj.weight": (64, 192),
        "q_proj.bias": (192,), "k_proj.bias": (96,), "v_proj.bias": (96,), "o_proj.bias": (64,),
        "q_norm.weight": (24,), "k_norm.weight": (24,),
    }  # fmt: skip


@pytest.mark.parametrize("case", ["dynamic_gqa", "phi3_su"])
def test_fused_weights_with_a_head_dim_of_their_own(case):
    config = tiny_config(case)
    config["llm_config"]["head_dim"] = 24
    sizes = decoder_sizes(config["llm_config"])
    ours = {name: shape for rule in rules_for(config) for name, shape in zip(rule.ours, rule.our_shapes())}
    layer = "language_model.model.layers.0.self_attn."
    assert ours[layer + "q_proj.weight"] == (64, sizes.heads * 24)
    assert ours[layer + "v_proj.weight"] == (64, sizes.kv_heads * 24)
    assert ours[layer + "o_proj.weight"] == (sizes.heads * 24, 64)


def test_sparse_layers():
    """Each second layer, but for those that have an MLP all the same."""
    llm = {**tiny_config("qwen3_moe")["llm_config"], "num_hidden_layers": 8}
    assert decoder_sizes({**llm, "decoder_sparse_step": 2, "mlp_only_layers": [3]}).experts.layers == {1, 5, 7}
    assert decoder_sizes({**llm, "mlp_only_layers": None}).experts.layers == set(range(8))


def test_a_tile_of_another_side():
    tile = tile_sizes({"force_image_size": 672, "vision_config": {"image_size": 448}, "downsample_ratio": 0.25})
    assert (tile.side, tile.grid, tile.merge, tile.tokens) == (672, 48, 4, 144)
    assert tile_sizes({"vision_config": {}}).tokens == 64  # upstream's defaults: 224 pixels, patches of 14, ratio 0.5


@pytest.mark.parametrize("architectures", [None, [], ["Qwen4ForCausalLM"]])
def test_other_architectures_are_refused(architectures):
    with pytest.raises(CheckpointError, match="is not supported; supported: 'InternLM2ForCausalLM', 'Qwen2"):
        decoder_sizes({"architectures": architectures})


def test_members_that_are_refused_by_name():
    with pytest.raises(CheckpointError, match="GPT-OSS-20B-A4B-Preview; take another"):
        decoder_sizes({"architectures": ["GptOssForCausalLM"]})
    native = {"model_type": "internvl", "vision_config": {}, "text_config": {"model_type": "gpt_oss"}}
    with pytest.raises(CheckpointError, match="GPT-OSS-20B-A4B-Preview; take another"):
        rules_for(native)


def test_flash_members_are_refused_by_fields_or_tensors():
    published = json.loads((ROOT / "configs/internvl3_5-8b.json").read_text())
    with pytest.raises(CheckpointError, match="which tiles have 64 instead of 256 tokens.*; take InternVL3_5-8B$"):
        rules_for({**published, "flash_mode": True, "flash_relative_threshold": 0.5})
    for tensor in ("mlp2.1.weight", "gating.gate.0.bias", "pooling_before_gating.query_token"):
        with pytest.raises(CheckpointError, match="router.*take the member of the same size without -Flash$"):
            rules_for(tiny_config("qwen3"), ["vision_model.embeddings.class_embedding", tensor])
    assert rules_for(published, ["mlp1.1.weight"])


def test_fields_left_over_from_other_models():
    """InternVL3-1B's config.json has those of a mixture of experts in a plain vision tower."""
    config = tiny_config("internvl3")
    found = unused_fields(config)
    assert {"system_message", "image_fold", "vision_config.num_experts", "llm_config.moe_config"} < set(found)
    assert len(found) == 18 and found.count("vision_config.use_moe") == 1
    vision = {name: value for name, value in config["vision_config"].items() if f"vision_config.{name}" not in found}
    assert rules_for(config) == rules_for({**config, "vision_config": vision})
    config["vision_config"]["use_moe"] = True
    with pytest.raises(CheckpointError, match="vision_config.use_moe=True is not supported, only False"):
        rules_for(config)
