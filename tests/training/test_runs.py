"""Twelve AdamW steps in a plain loop, as upstream's Trainer took them: losses, gradient norms, final weights."""

from collections.abc import Callable

import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.training.collate import collate
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.schedule import learning_rate_factor, warmup_steps
from paddle_internvl.training.trainable import set_trainable
from tests.training.goldens import CHECKPOINT, golden
from tests.training.loop import require_equal_steps, require_equal_weights, run_samples, train


def freeze(**arguments) -> Callable:
    return lambda model: set_trainable(model, **arguments)


RUNS = {
    "full_internlm2": (freeze(freeze_backbone=True), "hf"),
    "full_one_group_internlm2": (freeze(freeze_backbone=True), "all"),
    "mlp_internlm2": (freeze(freeze_backbone=True, freeze_llm=True), "hf"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_upstream_s(name):
    prepare, decay_rule = RUNS[name]
    run = train(name, prepare, decay_rule)
    require_equal_steps(run, name)
    require_equal_weights(run, name, stored=name if name != "full_one_group_internlm2" else "")
    frozen = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    for (key, before), (_, after) in zip(frozen.named_parameters(), run.model.named_parameters()):
        assert key in run.initial or (before.numpy() == after.numpy()).all(), f"{key} is frozen and has moved"
    first = float(sft_loss(run.model, collate(run_samples()[:2])))
    assert first == pytest.approx(golden(f"sft_run/{name}")["loss_of_first_two_samples_after"], rel=5e-6)


@pytest.mark.parametrize("name", ["full_internlm2", "mlp_internlm2"])
def test_hf_decay_groups_are_upstream_s(name):
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    RUNS[name][0](model)
    trainable = {key for key, p in model.named_parameters() if not p.stop_gradient}
    assert decayed_parameters(model, "all") == trainable
    assert sorted(trainable - decayed_parameters(model, "hf")) == sorted(golden(f"sft_run/{name}")["without_decay"])


def test_hf_decay_leaves_out_llama_s_norms_alone(models):
    for case, exempt in (("llama", True), ("qwen2", False)):
        model = InternVLChatModel.from_pretrained(str(models[case].checkpoint_folder), trainable=True)
        assert ("language_model.model.norm.weight" not in decayed_parameters(model, "hf")) == exempt
    with pytest.raises(ValueError, match="decay_rule='none'"):
        decayed_parameters(model, "none")


def test_schedules_by_hand():
    assert [learning_rate_factor("linear", step, 2, 6) for step in range(7)] == [0, 0.5, 1, 0.75, 0.5, 0.25, 0]
    assert [learning_rate_factor("constant", step, 0, 2) for step in range(3)] == [1, 1, 1]
    assert [learning_rate_factor("constant_with_warmup", step, 2, 9) for step in (0, 1, 2, 8)] == [0, 0.5, 1, 1]
    assert warmup_steps(12, 0.03) == 1 and warmup_steps(12, 0.2) == 3 and warmup_steps(12, 0.2, steps=5) == 5
    with pytest.raises(ValueError, match="lr_scheduler_type='sine'"):
        learning_rate_factor("sine", 0, 0, 1)
