"""PyTorch's side of the training benchmark: a step of supervised fine-tuning, with PEFT's adapters for LoRA.

In: upstream's parts on torch, a recipe's arguments, a batch. Out: a function that does one step and returns the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from paddle_internvl.bench.training_stages import CLIP, LEARNING_RATE, LORA_DROPOUT

_FREEZE = {"freeze_backbone": "vision", "freeze_mlp": "projector", "freeze_llm": "language"}
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def training_step(parts: Mapping[str, nn.Module], recipe: Mapping, project: Callable, batch: Mapping) -> Callable:
    """One training step: loss as upstream computes it, gradients, clipping by global norm, AdamW.

    Args:
        parts: 'vision', 'projector' and 'language'.
        recipe: freezing and LoRA rank, by upstream's names.
        project: hidden states of the tower -> visual tokens.
        batch: `input_ids`, `labels` and `pixel_values`.
    """
    for argument, part in _FREEZE.items():
        parts[part].requires_grad_(not recipe.get(argument, False))
        parts[part].train()
    language = parts["language"]
    if recipe.get("use_llm_lora"):
        from peft import LoraConfig, get_peft_model

        rank = recipe["use_llm_lora"]
        config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=LORA_DROPOUT, target_modules=_TARGETS)
        language = get_peft_model(language, config)
        language.enable_input_require_grads()
    trained = [p for module in (parts["vision"], parts["projector"], language) for p in module.parameters()]
    trained = [parameter for parameter in trained if parameter.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    ids, labels = batch["input_ids"], batch["labels"]
    visual = labels == -100

    def run():
        tokens = project(parts["vision"](batch["pixel_values"])).flatten(0, 1)
        embeds = language.get_input_embeddings()(ids).clone()
        embeds[visual] = embeds[visual] * 0.0 + tokens
        logits = language(inputs_embeds=embeds).logits.float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        adamw.step()
        adamw.zero_grad()
        return loss

    return run
