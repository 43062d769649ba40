"""Training of a mixture of experts: the load-balancing loss, recompute, packs, preference pairs and adapters."""

import numpy as np
import paddle
import pytest

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.experts import load_balancing_loss
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.training.lora import add_lora, lora_layers
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.reference import answer_log_probs
from paddle_internvl.training.trainable import set_load_balancing
from tests.random_checkpoints import random_pixels, tiny_config


@pytest.fixture
def model():
    paddle.seed(0)
    network = InternVLNetwork(InternVLChatConfig.from_dict(tiny_config("qwen3_moe")))
    network.img_context_token_id = 7
    network.train()
    return network


def padded_batch() -> dict:
    """Two rows, of which the second is padded."""
    ids = np.random.default_rng(0).integers(8, 1000, (2, 20))
    ids[0, :4] = 7
    mask = np.arange(20)[None] < np.array([[20], [11]])
    return {
        "pixel_values": random_pixels(1, 56), "image_flags": np.ones(1, np.int64), "input_ids": ids,
        "labels": np.where(mask & (ids != 7), ids, -100), "attention_mask": mask.astype(np.int64),
        "position_ids": np.broadcast_to(np.arange(20), (2, 20)),
    }  # fmt: skip


def test_load_balancing_loss_by_hand():
    draw = np.random.default_rng(0)
    layers, mask = [draw.normal(size=(6, 4)).astype(np.float32) for _ in range(2)], np.array([[1, 1, 1], [1, 0, 0]])
    kept = np.concatenate([logits[mask.flatten() == 1] for logits in layers])
    shares = np.exp(kept) / np.exp(kept).sum(1, keepdims=True)
    chosen = np.argsort(-shares)[:, :2]
    tokens = np.bincount(chosen.flatten(), minlength=4) / len(kept)
    found = load_balancing_loss([paddle.to_tensor(logits) for logits in layers], 2, paddle.to_tensor(mask))
    assert float(found) == pytest.approx(4 * (tokens * shares.mean(0)).sum(), rel=1e-5)


def test_the_loss_has_it_in_training_alone(model):
    batch = padded_batch()
    plain = float(sft_loss(model, batch))
    set_load_balancing(model, 0.5)
    balanced = sft_loss(model, batch)
    added = float(model.language_model.balancing_loss)
    assert float(balanced) - plain == pytest.approx(added, rel=1e-4) and 0.5 * 2 * 0.9 < added < 0.5 * 2 * 2
    ids = batch["input_ids"].copy()
    ids[1, :4] = 7
    assert answer_log_probs(model, {**batch, "input_ids": ids}).shape == [2]
    assert model.language_model.balancing_loss is not None  # which preference optimisation adds
    model.eval()
    assert float(sft_loss(model, batch)) == pytest.approx(plain, rel=1e-6)
    nothing = {**batch, "labels": np.full((2, 20), -100)}
    model.train()
    assert float(sft_loss(model, nothing)) == 0


def test_recomputed_layers_have_the_same_gradients(model):
    set_load_balancing(model, 0.5)
    gradients = []
    for recompute in (False, True):
        model.language_model.model.enable_recompute = recompute
        sft_loss(model, padded_batch()).backward()
        gradients.append({name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None})
        model.clear_gradients()
    assert gradients[0].keys() == gradients[1].keys() and any("mlp.gate" in name for name in gradients[0])
    for name, value in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_weight_over_ranks_does_not_scale_it(model):
    """One rank: the weights' share is their sum over itself, whatever the load-balancing loss is."""
    set_load_balancing(model, 0.5)
    batch = {name: value[:1] for name, value in padded_batch().items() if name != "attention_mask"}
    batch |= {"cu_seqlens": np.array([0, 9, 20], np.int32), "loss_weight": np.full((1, 20), 0.5, np.float32)}
    assert float(sft_loss(model, batch, True)) == pytest.approx(float(sft_loss(model, batch)), rel=1e-6)


def test_adapters_leave_router_and_experts_out(model):
    add_lora(model, use_llm_lora=2)
    names = {name.removeprefix("language_model.model.layers.") for name in lora_layers(model)}
    attention = {f"{n}.self_attn.{letter}_proj" for n in (0, 1) for letter in "qkvo"}
    assert names == attention | {f"0.mlp.{name}_proj" for name in ("gate", "up", "down")}
    sft_loss(model, padded_batch()).backward()
    assert all(layer.lora_B.grad is not None for layer in lora_layers(model).values())


def test_models_without_experts_have_no_such_loss():
    dense = InternVLNetwork(InternVLChatConfig.from_dict(tiny_config("qwen3")))
    with pytest.raises(ValueError, match="router_aux_loss_coef=0.1: the model has no experts"):
        set_load_balancing(dense, 0.1)
