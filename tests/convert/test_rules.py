"""Rules and layouts: against weights rearranged by hand, against the built model, and their refusals."""

import json

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

from convert import CheckpointError
from convert.layouts import internlm2_qkv, stacked
from convert.mappings import rules_for
from convert.rules import Drop, keep, linear, plan, split, stack
from convert.safetensors_io import TensorInfo
from tests.random_checkpoints import ROOT, tiny_config, upstream_shapes


def infos(shapes, dtype="F32"):
    return {name: TensorInfo(name, dtype, tuple(shape), None, 0) for name, shape in shapes.items()}


def run(rules, arrays, to_paddle, rows_at_a_time):
    """Every output of a plan, filled a few rows at a time."""
    made = {}
    for _, output in plan(rules, infos({n: a.shape for n, a in arrays.items()}), to_paddle=to_paddle):
        out = np.empty(output.shape, np.float32)
        for first in range(0, output.shape[0], rows_at_a_time):
            last = min(first + rows_at_a_time, output.shape[0])
            output.fill(arrays.__getitem__, out[first:last], first, last)
        made[output.name] = out
    return made


@settings(max_examples=60, deadline=None)
@given(
    kv=st.integers(1, 4), group=st.integers(1, 4), e=st.integers(1, 5), width=st.integers(1, 300),
    rows=st.integers(1, 400), bias=st.booleans(),
)  # fmt: skip
def test_internlm2_qkv_by_einops_words(kv, group, e, width, rows, bias):
    """Upstream reads the fused rows as 'b q (h gs d) -> b q h gs d' and takes [:gs-2], [-2] and [-1] of gs."""
    total = kv * (group + 2) * e
    fused = np.random.default_rng(0).normal(size=(total,) if bias else (total, width)).astype(np.float32)
    rules = [split("wqkv", ["q", "k", "v"], fused.shape, internlm2_qkv(kv * group, kv, e))]
    made = run(rules, {"wqkv": fused}, True, rows)
    parts = fused.reshape(kv, group + 2, e, *fused.shape[1:])
    for name, part in (("q", parts[:, :group]), ("k", parts[:, -2]), ("v", parts[:, -1])):
        np.testing.assert_array_equal(made[name], part.reshape(-1, *fused.shape[1:]).T)
    np.testing.assert_array_equal(run(rules, made, False, rows)["wqkv"], fused)


def test_stacked_parts():
    fused = np.arange(24, dtype=np.float32).reshape(8, 3)
    rules = [split("qkv", ["q", "k", "v"], (8, 3), stacked(4, 2, 2))]
    made = run(rules, {"qkv": fused}, True, 2)
    for name, rows in (("q", fused[:4]), ("k", fused[4:6]), ("v", fused[6:])):
        np.testing.assert_array_equal(made[name], rows.T)
    np.testing.assert_array_equal(run(rules, made, False, 3)["qkv"], fused)


def test_experts_are_stacked():
    """The gate's columns before the up projection's, expert by expert, and back."""
    draw, experts, inputs, features = np.random.default_rng(0), 3, 5, 4
    weights = {
        f"{e}.{name}": draw.normal(size=(features, inputs)).astype(np.float32) for e in range(experts) for name in "gu"
    }
    rules = [stack(list(weights), "gate_up", (features, inputs), stacked(features, features))]
    made = run(rules, weights, True, 2)
    expected = [np.concatenate([weights[f"{e}.g"].T, weights[f"{e}.u"].T], axis=1) for e in range(experts)]
    np.testing.assert_array_equal(made["gate_up"], np.stack(expected))
    back = run(rules, made, False, 3)
    assert list(back) == list(weights)
    for name, weight in weights.items():
        np.testing.assert_array_equal(back[name], weight)


def test_tensors_of_the_largest_mixture_of_experts():
    """36,096 tensors of experts become two of each layer, and every tensor is taken once."""
    config = json.loads((ROOT / "configs/internvl3_5-241b-a28b.json").read_text())
    planned = plan(rules_for(config), infos(upstream_shapes(config)), to_paddle=True)
    stacks = [output for rule, output in planned if rule.kind == "Stack"]
    assert sum(len(output.copies) for output in stacks) == 94 * 128 * 3 == 36_096
    assert len(stacks) == 94 * 2 and {output.shape for output in stacks} == {(128, 4096, 3072), (128, 1536, 4096)}
    assert len(planned) == 94 * 11 + 45 * 13 + 4 + 6 + 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 700))
def test_linear_transposes_whatever_the_blocks(rows, columns, at_a_time):
    weight = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    rules = [linear("w", "ours.w", (rows, columns))]
    made = run(rules, {"w": weight}, True, at_a_time)
    np.testing.assert_array_equal(made["ours.w"], weight.T)
    np.testing.assert_array_equal(run(rules, made, False, at_a_time)["w"], weight)


def test_linear_rows_are_the_models_linear_weights(case):
    """Many weights are square, so no shape shows a missing transpose; the built model is the second witness."""
    from paddle_internvl.configuration import InternVLChatConfig
    from paddle_internvl.models.internvl import InternVLNetwork

    config = tiny_config(case)
    with paddle.LazyGuard():
        model = InternVLNetwork(InternVLChatConfig(**config))
    in_model = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)}
    transposed = {
        output.name for rule, output in plan(rules_for(config), infos(upstream_shapes(config)), to_paddle=True)
        if output.transposed
    }  # fmt: skip
    assert transposed == in_model
    ours = {name: shape for rule in rules_for(config) for name, shape in zip(rule.ours, rule.our_shapes())}
    assert ours == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


RULES = [keep("a", "x", (2,)), linear("b", "y", (2, 3))]


def refusal(shapes, rules=RULES, to_paddle=True):
    with pytest.raises(CheckpointError) as raised:
        plan(rules, shapes, to_paddle=to_paddle)
    return str(raised.value)


def test_key_without_rule():
    shapes = infos({"a": (2,), "b": (2, 3)})
    shapes["lora_A"] = TensorInfo("lora_A", "F32", (1,), __import__("pathlib").Path("dir/model-2.safetensors"), 0)
    assert "1 tensors have no rule: lora_A in model-2.safetensors" in refusal(shapes)


def test_missing_key():
    assert "1 tensors are missing: b" in refusal(infos({"a": (2,)}))


def test_two_rules_for_a_key():
    assert "a is taken by two rules (Keep, Keep)" in refusal(
        infos({"a": (2,), "b": (2, 3)}), [*RULES, keep("a", "z", (2,))]
    )


def test_wrong_shape():
    message = refusal(infos({"a": (5,), "b": (3, 2)}))
    assert "a has shape [5], config.json means [2]" in message and "(and 1 more problems)" in message
    assert "y has shape [2, 3], config.json means [3, 2]" in refusal(infos({"x": (2,), "y": (2, 3)}), to_paddle=False)


def test_optional_and_dropped_tensors():
    rules = [keep("a", "x", (2,), optional=True), Drop(("inv_freq",), (), (), optional=True, why="recomputed")]
    assert plan(rules, infos({"inv_freq": (7,)}), to_paddle=True) == []


def test_other_models_are_refused():
    with pytest.raises(CheckpointError, match="model_type 'bert'"):
        rules_for({"model_type": "bert"})
    with pytest.raises(CheckpointError, match="'GPT2LMHeadModel' is not supported; supported: 'InternLM2"):
        rules_for({"model_type": "internvl_chat", "llm_config": {"architectures": ["GPT2LMHeadModel"]}})
    config = tiny_config("dynamic_gqa")
    del config["vision_config"]["hidden_size"]
    with pytest.raises(CheckpointError, match="lacks the field 'hidden_size'"):
        rules_for(config)
