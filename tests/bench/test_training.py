"""The training benchmark: what a step trains, and PyTorch's step beside ours."""

import importlib.util

import numpy as np
import pytest

from paddle_internvl.bench.ours import Ours
from paddle_internvl.bench.random_checkpoint import write_random
from paddle_internvl.bench.training import bench_training
from paddle_internvl.bench.training_stages import TRAINING_CONTENDERS, TRAINING_STAGES
from tests.random_checkpoints import tiny_config

WORK = {"tiles": 2, "text": 10}
RECIPES = {stage.name: stage.numbers["recipe"] for stage in TRAINING_STAGES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random(tmp_path_factory.mktemp("bench") / "hf", {**tiny_config("qwen2"), "torch_dtype": "float32"})


def ours(folder, stage: str):
    side = Ours("cpu")
    side.load(folder, "all", **TRAINING_CONTENDERS["ours"].options)
    return side, side.prepare("training_step", recipe=RECIPES[stage], **WORK)


@pytest.mark.parametrize(
    ("stage", "trained"),
    [("SFT, frozen tower", ("language_model", "mlp1")), ("LoRA", ("lora",)), ("stage 1", ("mlp1",))],
)
def test_a_step_changes_what_is_trained(folder, stage, trained):
    side, step = ours(folder, stage)
    before = {name: parameter.numpy() for name, parameter in side.model.named_parameters()}
    losses = [float(step()) for _ in range(2)]
    changed = {name for name, p in side.model.named_parameters() if not np.array_equal(p.numpy(), before[name])}
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    assert changed and all(any(part in name for part in trained) for name in changed)


@pytest.mark.torch
@pytest.mark.parametrize("stage", RECIPES)
def test_loss_is_that_of_pytorch(folder, stage):
    if stage == "LoRA" and importlib.util.find_spec("peft") is None:
        pytest.skip("peft is not installed")
    from paddle_internvl.bench.reference import Reference

    reference = Reference("cpu")
    reference.load(folder, "all")
    step, (_, our_step) = reference.prepare("training_step", recipe=RECIPES[stage], **WORK), ours(folder, stage)
    losses = [(float(our_step()), float(step())) for _ in range(2)]
    for one, other in losses:
        assert one == pytest.approx(other, rel=1e-5)


def test_unknown_stages_are_refused(tmp_path):
    with pytest.raises(ValueError, match="stage 'DPO' does not exist; stages: SFT, frozen tower, LoRA, stage 1"):
        bench_training(tmp_path, {}, tmp_path, stages=["DPO"])
