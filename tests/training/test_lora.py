"""LoRA: upstream's targets, shared A, PEFT's initial values, merging, frozen weights, twelve steps of PEFT."""

import numpy as np
import paddle
import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.checkpoints.preparation import prepare_for_inference
from paddle_internvl.training.lora import add_lora, lora_layers, merge_lora, targets_of
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import set_trainable
from tests.training.goldens import CHECKPOINT
from tests.training.loop import internlm2_run
from tests.training.lora_runs import require_equal_lora_run
from tests.training.test_losses import batch_of

TARGETS = {  # upstream's, by architecture
    "internlm2": ["attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w3", "feed_forward.w2"],
    "phi3": ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    "llama": [f"self_attn.{n}_proj" for n in "qkvo"] + [f"mlp.{n}_proj" for n in ("gate", "up", "down")],
    "vision": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"],
}


def load() -> InternVLChatModel:
    return InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)


def fill(model, seed: int = 0) -> None:
    """Random values in every B."""
    paddle.seed(seed)
    for layer in lora_layers(model).values():
        layer.lora_B.set_value(paddle.randn(layer.lora_B.shape) * 0.1)


@pytest.mark.parametrize(
    "case, family",
    [("dynamic_gqa", "internlm2"), ("phi3_su", "phi3"), ("qwen2", "llama"), ("qwen3", "llama"), ("llama", "llama")],
)
def test_targets_are_upstream_s(models, case, family):
    targets = targets_of(models[case])
    for tower, expected in (("language_model", TARGETS[family]), ("vision_model", TARGETS["vision"])):
        first = [
            target.suffix
            for target in targets
            if target.upstream.startswith(f"{tower}.") and ".layers.0." in target.upstream
        ]
        assert sorted(first) == sorted(expected)


def test_names_shapes_and_shared_a():
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2)
    names = {name: list(p.shape) for name, p in model.named_parameters() if not p.stop_gradient}
    assert len(names) == 3 * (5 + 7) + 3 * 4 * 2 and all(".lora_" in name for name in names)
    attention = model.language_model.model.layers[0].self_attn
    assert attention.q_proj.lora_A is attention.k_proj.lora_A is attention.v_proj.lora_A
    assert names["language_model.model.layers.0.self_attn.q_proj.lora_A"] == [64, 4]
    assert names["language_model.model.layers.0.self_attn.k_proj.lora_B"] == [4, 32]
    assert names["vision_model.encoder.layers.2.mlp.fc2.lora_A"] == [160, 2]
    state = model.state_dict()
    assert (state["language_model.model.layers.0.self_attn.v_proj.lora_A"] == attention.q_proj.lora_A).all()


def test_initial_values_are_peft_s():
    """A uniform within 1 / sqrt(in), B zero: the model computes what it did."""
    model, plain = add_lora(load(), use_llm_lora=64, use_backbone_lora=64), load()
    for layer in lora_layers(model).values():
        bound = layer.weight.shape[0] ** -0.5
        values = layer.lora_A.numpy()
        assert np.abs(values).max() <= bound and values.std() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not layer.lora_B.numpy().any() and layer.scale == 16 / 64
    batch = batch_of("sft")
    assert float(sft_loss(model, batch)) == float(sft_loss(plain, batch))


@pytest.mark.parametrize("recompute", [False, True])
def test_only_adapters_get_gradients(recompute):
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2)
    model.vision_model.encoder.enable_recompute = model.language_model.model.enable_recompute = recompute
    model.train()
    fill(model)
    sft_loss(model, batch_of("sft")).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None and bool(p.grad.abs().sum() > 0)) == (".lora_" in name), name


def test_freezing_beside_adapters():
    model = add_lora(load(), use_llm_lora=4)
    set_trainable(model, freeze_backbone=True, unfreeze_lm_head=True)
    names = {name for name, p in model.named_parameters() if not p.stop_gradient}
    assert {name for name in names if ".lora_" not in name and not name.startswith("mlp1.")} == {
        "language_model.lm_head.weight"
    }
    assert sum(name.startswith("mlp1.") for name in names) == 6 and sum(".lora_" in name for name in names) == 36


def test_merged_equals_unmerged():
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2, lora_alpha=8)
    fill(model)
    before, plain = float(sft_loss(model, batch_of("sft_multi"))), float(sft_loss(load(), batch_of("sft_multi")))
    merged = merge_lora(model)
    assert not lora_layers(merged) and not any(p.stop_gradient for p in merged.parameters())
    assert {n: p.shape for n, p in merged.named_parameters()} == {n: p.shape for n, p in load().named_parameters()}
    assert float(sft_loss(merged, batch_of("sft_multi"))) == pytest.approx(before, rel=2e-6)
    assert abs(before - plain) > 1e-3
    prepare_for_inference(merged)


def test_upstream_s_alpha_is_twice_each_tower_s_rank():
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2, lora_alpha=None)
    alphas = {(name.partition(".")[0], layer.lora_alpha) for name, layer in lora_layers(model).items()}
    assert alphas == {("language_model", 8), ("vision_model", 4)}


def test_dropout_acts_in_training_mode_alone():
    model = add_lora(load(), use_llm_lora=4, lora_dropout=0.5)
    fill(model)
    model.eval()
    assert float(sft_loss(model, batch_of("sft"))) == float(sft_loss(model, batch_of("sft")))
    model.train()
    assert float(sft_loss(model, batch_of("sft"))) != float(sft_loss(model, batch_of("sft")))


def test_errors():
    with pytest.raises(ValueError, match="one of them above 0"):
        add_lora(load(), use_llm_lora=0)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        add_lora(add_lora(load()))
    with pytest.raises(ValueError, match="no LoRA adapters to merge"):
        merge_lora(load())
    with pytest.raises(ValueError, match="trainable=True"):
        add_lora(InternVLChatModel.from_pretrained(str(CHECKPOINT)))


def test_a_run_is_upstream_s():
    require_equal_lora_run(internlm2_run("lora_internlm2"))
