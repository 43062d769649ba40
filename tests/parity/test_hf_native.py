"""Transformers' own layout: its InternVL saved by itself, loaded and converted by us, and back into it."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoConfig, AutoModel
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.mappings.hf_native import native_config, upstream_config
from convert.streaming import convert
from paddle_internvl import InternVLChatConfig, InternVLChatModel
from tests.random_checkpoints import random_checkpoint, random_pixels, tiny_config

TOLERANCE = 2e-5
TEXT = {
    "qwen2": {
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
    },  # InternVL3's, in action
    "qwen3": {"model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 20,
        "decoder_sparse_step": 2,
        "norm_topk_prob": True,
    },
    "llama": {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 1, "attention_bias": True},
    "phi3": {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0},
}
CONTEXT = 96


def native(kind: str, six_billion: bool) -> dict:
    """A tiny native config."""
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
        "hidden_act": "gelu", "image_size": [56, 56], "patch_size": [14, 14], "use_mean_pooling": True,
        "layer_scale_init_value": 0.5,
        "norm_type": "rms_norm" if six_billion else "layer_norm", "use_qk_norm": six_billion,
        "attention_bias": not six_billion,
    }  # fmt: skip
    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 101, "rope_theta": 10000.0,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, **TEXT[kind],
    }  # fmt: skip
    return {"vision_config": vision, "text_config": text, "image_token_id": CONTEXT, "image_seq_length": 4,
            "tie_word_embeddings": False}  # fmt: skip


@pytest.fixture(
    params=[("qwen2", False), ("qwen3", True), ("qwen3_moe", False), ("llama", True), ("phi3", False)],
    ids=lambda p: p[0],
)
def reference(request, tmp_path):
    """(transformers' model with random weights, the folder it saved itself into)"""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(InternVLConfig(**native(*request.param))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(tmp_path / "native")
    return model, tmp_path / "native"


def prompts():
    ids = np.random.default_rng(0).integers(1, 90, (1, 24))
    ids[0, 3:11] = CONTEXT
    return random_pixels(2, 56), ids


def logits_of(reference):
    import torch

    pixels, ids = prompts()
    with torch.no_grad():
        return reference(input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pixels)).logits.numpy()


def our_logits(folder):
    model = AutoModel.from_pretrained(str(folder))
    assert type(model) is InternVLChatModel and model.img_context_token_id == CONTEXT
    pixels, ids = prompts()
    with paddle.no_grad():
        return model(paddle.to_tensor(pixels), paddle.to_tensor(ids)).logits.numpy()


@pytest.mark.torch
def test_both_ways(reference, tmp_path):
    from transformers import InternVLForConditionalGeneration

    model, folder = reference
    expected = logits_of(model)
    convert(folder, tmp_path / "pd", to_paddle=True)
    for place in (folder, tmp_path / "pd"):
        logits = our_logits(place)
        assert np.abs(logits - expected).max() / np.abs(expected).max() < TOLERANCE
        assert type(AutoConfig.from_pretrained(str(place))) is InternVLChatConfig
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False, layout="transformers")
    one, other = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    again = InternVLForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    np.testing.assert_array_equal(logits_of(again), expected)


@pytest.mark.torch
def test_newer_names(reference):
    model, folder = reference
    newer = {
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
    }
    renamed = {}
    for name, array in load_file(folder / "model.safetensors").items():
        old, new = next((old, new) for old, new in newer.items() if name.startswith(old))
        renamed[name.replace(old, new, 1)] = array
    expected = logits_of(model)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    logits = our_logits(folder)
    assert np.abs(logits - expected).max() / np.abs(expected).max() < TOLERANCE


@pytest.mark.torch
@pytest.mark.parametrize("case", ["dynamic_gqa", "qwen2", "qwen3", "llama"])
def test_upstreams_folders_become_native(case, tmp_path):
    """An InternLM2 becomes the Llama it is; transformers' model answers as ours does."""
    import torch
    from transformers import InternVLForConditionalGeneration

    source = random_checkpoint(tmp_path / "hf", tiny_config(case))
    convert(source, tmp_path / "pd", to_paddle=True)
    convert(tmp_path / "pd", tmp_path / "native", to_paddle=False, layout="transformers")
    theirs = InternVLForConditionalGeneration.from_pretrained(tmp_path / "native").eval()
    assert theirs.config.image_token_id == 1002
    ours = AutoModel.from_pretrained(str(source))
    ids = np.random.default_rng(0).integers(3, 990, (1, 30))
    ids[0, 2:10] = 1002
    pixels = random_pixels(2, 56)
    with torch.no_grad(), paddle.no_grad():
        expected = theirs(input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pixels)).logits.numpy()
        logits = ours(paddle.to_tensor(pixels), paddle.to_tensor(ids)).logits.numpy()
    assert np.abs(logits - expected).max() / np.abs(expected).max() < TOLERANCE


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("text_config", "model_type"),
            "gpt2",
            "text_config.model_type is 'gpt2'; supported: qwen2, qwen3, qwen3_moe, llama, phi3",
        ),
        (("vision_feature_select_strategy",), "full", "is not supported, only 'default'"),
        (("vision_config", "use_mean_pooling"), False, "use_mean_pooling=False is not supported"),
        (("vision_config", "image_size"), [56, 28], "must be square, not 56 x 28"),
    ],
)
def test_native_configs_that_are_not_supported(path, value, message):
    config = native("qwen2", False)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(CheckpointError, match=message):
        upstream_config(config)


def test_what_has_no_native_form():
    with pytest.raises(CheckpointError, match="ps_version 'v1' can't be expressed"):
        native_config(tiny_config("biased_v1"), None)
    with pytest.raises(CheckpointError, match="type 'yarn' can't be expressed"):
        native_config(tiny_config("phi3_yarn"), None)
    llama = tiny_config("llama")
    llama["llm_config"]["qk_norm"] = True
    with pytest.raises(CheckpointError, match="LlamaForCausalLM has no q and k norms"):
        native_config(llama, None)
    config = tiny_config("qwen2")
    config["force_image_size"] = 28
    with pytest.raises(CheckpointError, match="force_image_size 28 differs from image_size 56"):
        native_config(config, None)


def test_configs_survive_both_translations():
    for case in ("qwen2", "qwen3", "qwen3_moe", "llama", "phi3_su"):
        chat = tiny_config(case)
        chat["vision_config"]["image_size"] = chat["force_image_size"]  # a native config has one side
        again = upstream_config(json.loads(json.dumps(native_config(chat, 7))))
        for part in ("vision_config", "llm_config"):
            shared = again[part].keys() & chat[part].keys()
            assert {k: again[part][k] for k in shared - {"tie_word_embeddings"}} == {
                k: chat[part][k] for k in shared - {"tie_word_embeddings"}
            }
