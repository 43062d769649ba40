"""Stages and contenders of the training benchmark, as tables; see `stages`."""

from __future__ import annotations

from dataclasses import replace

from paddle_internvl.bench.stages import BEST, CONTENDERS, OURS, TORCH, Stage

TRAINING_STEP = "training_step"  # the stages' kind
LEARNING_RATE, CLIP, LORA_DROPOUT = 1e-6, 1.0, 0.05
_GOALS = {OURS: (0.85, 0.95)}
_WORK = {"tiles": 2, "text": 256}
_FROZEN = {"freeze_backbone": True, "freeze_llm": True}
_RECIPES = {  # stage -> what is trained, by upstream's arguments
    "SFT, frozen tower": {"freeze_backbone": True},
    "LoRA": {**_FROZEN, "freeze_mlp": True, "use_llm_lora": 16},
    "stage 1": _FROZEN,
}
TRAINING_CONTENDERS = {
    OURS: replace(CONTENDERS[OURS], options={"trainable": True}, memory=1.1),
    TORCH: CONTENDERS[TORCH],
    BEST: CONTENDERS[BEST],
}
TRAINING_STAGES = tuple(
    Stage(name, TRAINING_STEP, {"recipe": recipe, **_WORK}, part="all", goals=_GOALS)
    for name, recipe in _RECIPES.items()
)
