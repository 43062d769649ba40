"""The live references: random configs through transformers' own modules, weights carried over by this file's own rules.

Goldens hold two fixed configs to upstream's code; here transformers' InternVL vision tower and Llama stand for it on
configs drawn at random. Needs torch and transformers (marker `torch`)."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from convert.rules import plan
from convert.safetensors_io import TensorInfo
from convert.streaming import convert
from paddle_internvl import GenerationConfig, InternVLChatConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.models.internvl import InternVLNetwork
from tests.random_checkpoints import (
    random_checkpoint,
    random_pixels,
    random_weight,
    rules_for,
    tiny_config,
    upstream_shapes,
)

pytestmark = pytest.mark.torch
TOLERANCE = 2e-5


def relative_error(ours, reference):
    reference = reference.detach().numpy()
    return np.abs(ours.numpy() - reference).max() / np.abs(reference).max()


def draw_config(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    config = tiny_config("dynamic_gqa")
    kv, group, e = int(rng.integers(1, 4)), int(rng.integers(1, 4)), 2 * int(rng.integers(2, 9))
    heads = int(rng.integers(1, 5))
    config["llm_config"].update(
        hidden_size=kv * group * e,
        num_attention_heads=kv * group,
        num_key_value_heads=kv,
        bias=bool(rng.integers(2)),
        intermediate_size=int(rng.integers(8, 99)),
        num_hidden_layers=int(rng.integers(1, 4)),
        vocab_size=101,
        rope_theta=float(rng.choice([1e4, 1e6])),
        max_position_embeddings=int(rng.choice([16, 4096])),
        rope_scaling=[None, {"type": "linear", "factor": 2.5}, {"type": "dynamic", "factor": 3.0}][rng.integers(3)],
    )
    rms = bool(rng.integers(2))
    config["vision_config"].update(
        hidden_size=heads * 4 * int(rng.integers(2, 5)),
        num_attention_heads=heads,
        num_hidden_layers=2,
        norm_type="rms_norm" if rms else "layer_norm",
        qk_normalization=rms,
        qkv_bias=bool(rng.integers(2)),
        image_size=int(rng.choice([56, 84])),
    )
    return config


def filled_network(config: dict, seed: int):
    """Our network with random weights, and those weights under upstream's names."""
    weights = {name: random_weight(name, shape, seed) for name, shape in upstream_shapes(config).items()}
    network = InternVLNetwork(InternVLChatConfig(**config)).eval()
    parameters = dict(network.named_parameters())
    tensors = {name: TensorInfo(name, "F32", array.shape, None, 0) for name, array in weights.items()}
    for _, output in plan(rules_for(config), tensors, to_paddle=True):
        array = np.empty(output.shape, np.float32)
        output.fill(weights.__getitem__, array, 0, output.shape[0])
        parameters[output.name].set_value(array)
    return network, weights


@pytest.fixture(params=range(8))
def pair(request):
    """(our network, name -> upstream weight, config)"""
    config = draw_config(request.param)
    network, weights = filled_network(config, request.param)
    with paddle.no_grad():
        yield network, weights, config


def test_vision_tower(pair):
    import torch
    from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
    from transformers.models.internvl.modeling_internvl import InternVLVisionModel

    network, weights, config = pair
    v = config["vision_config"]
    reference = InternVLVisionModel(
        InternVLVisionConfig(
            hidden_size=v["hidden_size"],
            num_hidden_layers=v["num_hidden_layers"],
            norm_type=v["norm_type"],
            num_attention_heads=v["num_attention_heads"],
            intermediate_size=v["intermediate_size"],
            attention_bias=v["qkv_bias"],
            use_qk_norm=v["qk_normalization"],
            image_size=[v["image_size"]] * 2,
            patch_size=[14, 14],
            layer_norm_eps=v["layer_norm_eps"],
            use_mean_pooling=True,
            hidden_act="gelu",
        )
    ).eval()
    state, c = {}, v["hidden_size"]
    names = {
        "embeddings.class_embedding": "embeddings.cls_token",
        "embeddings.position_embedding": "embeddings.position_embeddings",
        "embeddings.patch_embedding.weight": "embeddings.patch_embeddings.projection.weight",
        "embeddings.patch_embedding.bias": "embeddings.patch_embeddings.projection.bias",
    }
    parts = {
        "attn.proj.": "attention.projection_layer.",
        "attn.q_norm.": "attention.q_norm.",
        "attn.k_norm.": "attention.k_norm.",
        "mlp.": "mlp.",
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "ls1": "lambda_1",
        "ls2": "lambda_2",
    }
    for name, array in weights.items():
        if not name.startswith("vision_model."):
            continue
        name = name.removeprefix("vision_model.")
        if name in names:
            state[names[name]] = array
            continue
        _, _, layer, rest = name.split(".", 3)
        if rest.startswith("attn.qkv."):
            for letter, third in zip("qkv", np.split(array, 3)):
                state[f"encoder.layer.{layer}.attention.{letter}_proj.{rest.rpartition('.')[2]}"] = third
            continue
        old, new = next((old, new) for old, new in parts.items() if rest.startswith(old))
        state[f"encoder.layer.{layer}.{rest.replace(old, new, 1)}"] = array
    reference.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()}, strict=True)
    assert state["embeddings.cls_token"].shape == (1, 1, c)
    for side in (v["image_size"], 112):  # the second interpolates the positions
        pixels = random_pixels(2, side)
        expected = reference(torch.from_numpy(pixels)).last_hidden_state
        assert relative_error(network.vision_model(paddle.to_tensor(pixels)).last_hidden_state, expected) < TOLERANCE


def test_decoder(pair):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    network, weights, config = pair
    llm = config["llm_config"]
    scaling = llm["rope_scaling"] and {
        "rope_type": llm["rope_scaling"]["type"],
        "factor": llm["rope_scaling"]["factor"],
    }
    kept = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "rope_theta",
        "max_position_embeddings",
        "rms_norm_eps",
    )
    reference = LlamaForCausalLM(
        LlamaConfig(
            **{name: llm[name] for name in kept},
            attention_bias=llm["bias"],
            rope_scaling=scaling,
            tie_word_embeddings=False,
        )
    ).eval()
    kv, group = llm["num_key_value_heads"], llm["num_attention_heads"] // llm["num_key_value_heads"]
    names = {
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "tok_embeddings": "embed_tokens",
        "output": "lm_head",
    }
    state = {}
    for name, array in weights.items():
        if not name.startswith("language_model."):
            continue
        name = name.removeprefix("language_model.")
        if "wqkv" in name:
            heads = array.reshape(kv, group + 2, -1, *array.shape[1:])
            for letter, rows in (("q", heads[:, :group]), ("k", heads[:, group]), ("v", heads[:, group + 1])):
                new = name.replace("attention.wqkv", f"self_attn.{letter}_proj")
                state[new] = rows.reshape(-1, *array.shape[1:])
            continue
        old = next((old for old in names if f"{old}." in name), "")
        state[name.replace(old, names.get(old, ""), 1)] = array
    reference.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()}, strict=True)
    ids = np.random.default_rng(0).integers(0, 101, (2, 40))
    expected = reference(torch.from_numpy(ids)).logits
    assert relative_error(network.language_model(paddle.to_tensor(ids)), expected) < TOLERANCE
    if scaling is None or scaling["rope_type"] != "dynamic" or llm["max_position_embeddings"] > 40:
        made = reference.generate(torch.from_numpy(ids[:1]), max_new_tokens=12, do_sample=False, eos_token_id=None)
        assert greedy(network, ids[:1], 12) == made[0, 40:].tolist()


FAMILIES = {
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": None},
    "llama": {"architectures": ["LlamaForCausalLM"], "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama_biased": {"architectures": ["LlamaForCausalLM"], "attention_bias": True, "rope_scaling": None},
    "phi3_window": {
        "architectures": ["Phi3ForCausalLM"],
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.5, 2.0, 2.5],
            "long_factor": [2.0, 3.0, 4.0, 5.0],
        },
        "original_max_position_embeddings": 24,
        "sliding_window": 16,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 24, "rope_scaling": None},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 24,
        "rope_scaling": None,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 20,
        "norm_topk_prob": False,
        "mlp_only_layers": [0],
    },
    "phi3_short": {"architectures": ["Phi3ForCausalLM"], "rope_scaling": None, "sliding_window": None},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_other_backbones(family, kv_heads):
    import torch
    import transformers

    config = tiny_config("dynamic_gqa")
    llm = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101,
        "num_key_value_heads": kv_heads, "rope_theta": 10000.0, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "pad_token_id": 0, **FAMILIES[family],
    }  # fmt: skip
    name = llm["architectures"][0]
    reference_config = getattr(transformers, name.replace("ForCausalLM", "Config"))(
        **{key: value for key, value in llm.items() if key != "architectures"}, tie_word_embeddings=False
    )
    reference = getattr(transformers, name)(reference_config).eval()
    config["llm_config"] = llm
    network, weights = filled_network(config, seed=kv_heads)
    language = {n.removeprefix("language_model."): w for n, w in weights.items() if n.startswith("language_model.")}
    reference.load_state_dict({n: torch.from_numpy(w.copy()) for n, w in language.items()}, strict=True)
    ids = np.random.default_rng(0).integers(1, 101, (2, 40))
    with paddle.no_grad():
        assert (
            relative_error(network.language_model(paddle.to_tensor(ids)), reference(torch.from_numpy(ids)).logits)
            < TOLERANCE
        )
        made = reference.generate(torch.from_numpy(ids[:1]), max_new_tokens=12, do_sample=False, eos_token_id=None)
        assert greedy(network, ids[:1], 12) == made[0, 40:].tolist()


def greedy(network, ids, count):
    embeds = network.embed(paddle.to_tensor(ids), None)
    made, _ = generate_ids(network.language_model, embeds, None, GenerationConfig(max_new_tokens=count), 0)
    return made[0].tolist()


def test_saved_weights_are_read_by_torch(models, tmp_path):
    """A converted-back bfloat16 folder holds what torch reads as bfloat16."""
    import torch
    from safetensors.torch import load_file

    source = random_checkpoint(tmp_path / "hf", tiny_config("biased_v1"))
    model = AutoModel.from_pretrained(str(source))
    model.to(dtype="bfloat16")
    model.save_pretrained(str(tmp_path / "saved"))
    convert(tmp_path / "saved", tmp_path / "back", to_paddle=False)
    one, other = load_file(source / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert one.keys() == other.keys()
    assert all(other[name].dtype == torch.bfloat16 and torch.equal(one[name], other[name]) for name in one)
