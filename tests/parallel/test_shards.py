"""Shares of a decoder: they make up the whole, whatever the sizes; what can't be shared is refused."""

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


def held(array: np.ndarray, split: ShardPlan, name: str) -> np.ndarray:
    """What a rank holds of a parameter."""
    cut = split.shard_of(name)
    if cut is None:
        return array
    part = np.moveaxis(np.moveaxis(array, cut.axis, 0)[cut.start : cut.stop], 0, cut.axis)
    room = [(0, cut.length - (cut.stop - cut.start) if axis == cut.axis else 0) for axis in range(array.ndim)]
    return np.pad(part, room)


sizes = st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 50), st.integers(1, 4))


@settings(deadline=None)
@given(sizes)
def test_shares_make_up_the_whole(drawn):
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
            parts, cut = [held(whole, rank, name) for rank in ranks], ranks[0].shard_of(name)
            assert len({part.shape for part in parts}) == 1
            if cut is None:
                assert "norm" in name
            elif name.endswith("o_proj.bias"):
                np.testing.assert_array_equal(sum(parts), whole)
            elif "k_proj" in name or "v_proj" in name:  # every rank has the kv heads that its query heads read
                own = groups * kv // size
                by_head = np.split(whole, kv, axis=cut.axis)
                for rank, part in enumerate(parts):
                    wanted = dict.fromkeys(head // groups for head in range(rank * own, (rank + 1) * own))
                    np.testing.assert_array_equal(part, np.concatenate([by_head[k] for k in wanted], cut.axis))
            else:
                joined = np.concatenate(parts, axis=cut.axis)
                np.testing.assert_array_equal(joined.take(range(shape[cut.axis]), cut.axis), whole)
                assert not joined.take(range(shape[cut.axis], joined.shape[cut.axis]), cut.axis).any()


@pytest.mark.parametrize("file", MEMBERS, ids=lambda file: file.stem)
def test_every_member_can_be_shared_by_two(file):
    assert 2 in ShardPlan.of(json.loads(file.read_text())["llm_config"], 0, 1).possible_sizes


@pytest.mark.parametrize(
    ("case", "size", "possible"), [("qwen2", 2, "1"), ("dynamic_gqa", 3, "1, 2, 4"), ("biased_v1", 4, "1, 2")]
)
def test_what_cannot_be_shared_is_refused_with_what_can(case, size, possible):
    with pytest.raises(ValueError, match=f"tensor parallel over {size} is not possible .* possible: {possible}$"):
        ShardPlan.of(tiny_config(case)["llm_config"], 0, size)
