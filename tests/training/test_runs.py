"""Twelve AdamW steps in a plain loop, as upstream's Trainer took them: losses, gradient norms, final weights."""

from collections.abc import Callable

import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.schedule import learning_rate_factor, warmup_steps
from paddle_internvl.training.trainable import set_trainable
from tests.training.goldens import CHECKPOINT, golden
from tests.training.loop import internlm2_run, require_equal_steps, require_equal_weights, train


def freeze(**arguments) -> Callable:
    return lambda model: set_trainable(model, **arguments)


RUNS = {
    "full_internlm2": (freeze(freeze_backbone=True), "hf"),
    "full_one_group_internlm2": (freeze(freeze_backbone=True), "all"),
    "mlp_internlm2": (freeze(freeze_backbone=True, freeze_llm=True), "hf"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_upstream_s(name):
    expected = internlm2_run(name)
    run = train(expected, *RUNS[name])
    require_equal_steps(run, expected)
    require_equal_weights(run, expected)


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
