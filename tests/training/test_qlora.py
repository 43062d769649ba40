"""QLoRA: adapters over weights of 8 and 4 bits have the gradients of the float model with the dequantized weights."""

import json

import numpy as np
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl import InternVLChatModel
from paddle_internvl.ops.dispatch import force
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.training import train
from paddle_internvl.training.lora import add_lora, lora_layers, merge_lora
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import set_trainable
from tests.checkpoints.test_quantization import block_linears, float_twin
from tests.families import quantizable_config
from tests.random_checkpoints import random_checkpoint, random_pixels
from tests.training.goldens import CHECKPOINT
from tests.training.loop import run_samples
from tests.training.test_lora import fill

KINDS = [(8, -1), (8, 64), (4, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = quantizable_config("qwen2")
    config["llm_config"]["num_hidden_layers"] = config["vision_config"]["num_hidden_layers"] = 2
    return random_checkpoint(tmp_path_factory.mktemp("hf") / "model", config)


def batch_for(model) -> dict:
    """Two pictures of a tile in a row of 20 tokens, half of which are learnt."""
    ids = np.random.default_rng(0).integers(10, 900, (1, 20))
    ids[0, 2:10] = model.img_context_token_id
    return {
        "input_ids": ids, "labels": np.where(np.arange(20) < 11, -100, ids), "position_ids": np.arange(20)[None],
        "attention_mask": np.ones_like(ids), "pixel_values": random_pixels(2, 56), "image_flags": np.ones(2, np.int64),
    }  # fmt: skip


def gradients(model, recompute: bool = False) -> tuple[float, dict[str, np.ndarray]]:
    """Loss, and gradients of the adapters and the projector."""
    add_lora(model, use_llm_lora=4, use_backbone_lora=2)
    set_trainable(model, freeze_llm=True)
    model.language_model.model.enable_recompute = recompute
    fill(model)
    rng = np.random.default_rng(1)
    for layer in lora_layers(model).values():
        layer.lora_A.set_value(rng.normal(0, 0.1, layer.lora_A.shape).astype(np.float32))
    model.train()
    loss = sft_loss(model, batch_for(model))
    loss.backward()
    trained = {name: p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient}
    return float(loss), trained


@pytest.mark.parametrize(("bits", "group_size"), KINDS)
@pytest.mark.parametrize("implementation", ["native", "reference"])
def test_gradients_are_those_of_the_dequantized_twin(folder, bits, group_size, implementation):
    options = {f"load_in_{bits}bit": True, "group_size": group_size, "trainable": True}
    with force(weight_only_linear=implementation):
        quantized = InternVLChatModel.from_pretrained(str(folder), **options)
        assert all(isinstance(layer, QuantizedLinear) for layer in block_linears(quantized).values())
        loss, ours = gradients(quantized, recompute=group_size == 64)
    twin_loss, expected = gradients(float_twin(folder, bits, group_size))
    assert loss == pytest.approx(twin_loss, rel=1e-5)
    assert ours.keys() == expected.keys() and sum(".lora_" in name for name in ours) == 2 * (7 + 7 + 4 * 2)
    for name, gradient in expected.items():
        error = np.linalg.norm(ours[name] - gradient) / np.linalg.norm(gradient)
        assert error < 2e-5, name


def test_a_run(tmp_path):
    """OUTPUT is an adapter that chat merges into the float model."""
    config = {
        "model_name_or_path": str(CHECKPOINT), "output_dir": str(tmp_path / "out"), "load_in_8bit": True,
        "use_llm_lora": 4, "freeze_llm": True, "freeze_backbone": True, "freeze_mlp": True, "max_steps": 3,
        "learning_rate": 5e-3, "warmup_ratio": 0.0, "device": "cpu", "shuffle": False, "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 2, "conv_style": "internvl2_5",
    }  # fmt: skip
    model = train(config, dataset=run_samples()[:2])
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert AutoModel.from_pretrained(str(tmp_path / "out")).checkpoint_folder.resolve() == CHECKPOINT.resolve()
    with pytest.raises(ValueError, match="can't be merged into quantized weights; save_adapter writes it"):
        merge_lora(model)


def test_quantized_weights_are_frozen(folder):
    model = InternVLChatModel.from_pretrained(str(folder), load_in_4bit=True, trainable=True)
    with pytest.raises(ValueError, match="quantized weights can't be trained; set freeze_llm"):
        set_trainable(model)
    set_trainable(model, freeze_llm=True, freeze_backbone=True)
    model.train()
    sft_loss(model, batch_for(model)).backward()
    assert all((p.grad is not None) == name.startswith("mlp1.") for name, p in model.named_parameters())
