"""Measured memory of training on a CPU: of one forward and backward pass in this process, and of a whole run.

`python -m tests.estimation.measured_training FOLDER RECIPE LENGTH TILES` trains two steps, writes no checkpoint, and
prints the peak of the process's resident memory in bytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from paddle_internvl import startup


def sample(model, length: int, tiles: int) -> dict:
    """A sample of `length` tokens that begins with the visual tokens of `tiles` tiles and is learnt after them."""
    side, visual = model.config.tile_side, tiles * model.num_image_token
    ids = np.full(length, 7)
    ids[:visual] = model.img_context_token_id
    shown = max(tiles, 1)
    return {
        "input_ids": ids, "labels": np.where(ids == 7, ids, -100), "position_ids": np.arange(length),
        "pixel_values": np.zeros((shown, 3, side, side), np.float32), "image_flags": np.full(shown, int(tiles > 0)),
        "num_tiles": [tiles] if tiles else [], "dataset": "made", "index": 0,
    }  # fmt: skip


def step_peak(model, recipe: dict, length: int, tiles: int) -> int:
    """Most bytes of tensors that a forward and a backward pass, and a reference model, add to the parameters."""
    from paddle.base import core

    from paddle_internvl.training.collate import collate
    from paddle_internvl.training.losses import sft_loss
    from paddle_internvl.training.recipe import Recipe
    from paddle_internvl.training.reference import FrozenReference, answer_log_probs
    from paddle_internvl.training.run import prepare

    arguments = {name: value for name, value in recipe.items() if name not in ("recompute", "method")}
    prepare(model, Recipe.from_dict(arguments, recipe.get("method", "sft")))
    model.train()
    for part in (model.vision_model.encoder, model.language_model.model):
        part.enable_recompute = recipe.get("recompute", False)
    one = sample(model, length, tiles)
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    if recipe.get("method") == "mpo":
        batch = collate([{**one, "chosen": one, "rejected": one}])
        reference = FrozenReference(model)  # stays, as in training
        expected = reference.log_probs(batch)
        (answer_log_probs(model, batch) - expected).sum().backward()
    else:
        sft_loss(model, collate([one])).backward()
    return core.host_memory_stat_peak_value("Allocated", 0) - before


def main(folder: str, recipe: str, length: str, tiles: str) -> None:
    """Train two steps and print the process's peak."""
    startup.import_paddle()
    startup.keep_freed_memory(startup.TRAINING_BLOCK)
    from paddle_internvl.modeling import InternVLChatModel
    from paddle_internvl.training import train
    from paddle_internvl.training.sft import SftTrainer

    model = InternVLChatModel.from_pretrained(folder, trainable=True)
    if model.img_context_token_id is None:
        model.img_context_token_id = model.config.llm_config.vocab_size - 1
    samples = [sample(model, int(length), int(tiles)) for _ in range(2)]
    fixed = {"max_steps": 2, "per_device_train_batch_size": 1, "device": "cpu", "save_strategy": "no"}
    with tempfile.TemporaryDirectory() as output, mock.patch.object(SftTrainer, "save_trained"):
        train({**json.loads(recipe), **fixed, "output_dir": output}, model=model, dataset=samples)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
