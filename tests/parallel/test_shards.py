"""Shards of a decoder: together they are the whole, whatever the sizes; impossible numbers of ranks are refused."""

import json
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.mappings import rules_for
from paddle_internvl.parallel.shards import ShardPlan
from tests.random_checkpoints import ROOT, tiny_config

MEMBERS = sorted((ROOT / "configs").glob("internvl*.json"))


def decoder_shapes(llm: dict) -> dict[str, tuple[int, ...]]:
    config = {**tiny_config("dynamic_gqa"), "llm_config": llm}
    shapes = {name: shape for rule in rules_for(config) for name, shape in zip(rule.ours, rule.our_shapes())}
    return {name: shape for name, shape in shapes.items() if name.startswith("language_model.")}


def shard_array(array: np.ndarray, plan: ShardPlan, name: str) -> np.ndarray:
    """A rank's shard of a parameter."""
    shard = plan.shard_of(name)
    if shard is None:
        return array
    part = np.moveaxis(np.moveaxis(array, shard.axis, 0)[shard.start : shard.stop], 0, shard.axis)
    padding = shard.length - (shard.stop - shard.start)
    return np.pad(part, [(0, padding if axis == shard.axis else 0) for axis in range(array.ndim)])


sizes = st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 50), st.integers(1, 4))


@settings(deadline=None)
@given(sizes)
def test_shards_together_are_the_whole(drawn):
    kv, groups, head_dim, inner, vocabulary, more = drawn
    head_dim, heads = 2 * head_dim, kv * groups
    llm = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": heads * head_dim, "num_attention_heads": heads,
        "num_key_value_heads": kv, "intermediate_size": inner * heads, "num_hidden_layers": 1,
        "vocab_size": vocabulary * more, "attention_bias": True,
    }  # fmt: skip
    for size in ShardPlan.of(llm, 0, 1).possible_sizes:
        ranks = [ShardPlan.of(llm, rank, size) for rank in range(size)]
        for name, shape in decoder_shapes(llm).items():
            whole = np.arange(1, 1 + prod(shape)).reshape(shape)
            parts, shard = [shard_array(whole, rank, name) for rank in ranks], ranks[0].shard_of(name)
            assert len({part.shape for part in parts}) == 1
            if shard is not None:
                assert (shard.shape_of(shape), shard.whole_shape_of(parts[0].shape)) == (parts[0].shape, tuple(shape))
            if shard is None:
                assert "norm" in name
            elif name.endswith("o_proj.bias"):
                np.testing.assert_array_equal(sum(parts), whole)
            elif "k_proj" in name or "v_proj" in name:  # every rank has the kv heads that its query heads read
                own = groups * kv // size
                by_head = np.split(whole, kv, axis=shard.axis)
                for rank, part in enumerate(parts):
                    needed = dict.fromkeys(head // groups for head in range(rank * own, (rank + 1) * own))
                    np.testing.assert_array_equal(part, np.concatenate([by_head[k] for k in needed], shard.axis))
            else:
                joined = np.concatenate(parts, axis=shard.axis)
                np.testing.assert_array_equal(joined.take(range(shape[shard.axis]), shard.axis), whole)
                assert not joined.take(range(shape[shard.axis], joined.shape[shard.axis]), shard.axis).any()


@pytest.mark.parametrize("file", MEMBERS, ids=lambda file: file.stem)
def test_every_member_can_be_sharded_over_two_ranks(file):
    assert 2 in ShardPlan.of(json.loads(file.read_text())["llm_config"], 0, 1).possible_sizes


@pytest.mark.parametrize(
    ("case", "size", "possible"), [("qwen2", 2, "1"), ("dynamic_gqa", 3, "1, 2, 4"), ("biased_v1", 4, "1, 2")]
)
def test_an_impossible_number_of_ranks_is_refused_with_the_possible_ones(case, size, possible):
    with pytest.raises(ValueError, match=f"tensor parallel over {size} is not possible .* possible: {possible}$"):
        ShardPlan.of(tiny_config(case)["llm_config"], 0, size)
