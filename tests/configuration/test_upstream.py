"""Configs: overrides are validated as a file is, and a field that would change results is never ignored."""

import pytest

from paddle_internvl import InternVLChatConfig
from paddle_internvl.configuration import InternVLConfig
from tests.random_checkpoints import tiny_config

REFUSED = [  # path of a field, its value, the error
    (("select_layer",), 99, "select_layer=99 is not one of the 4 hidden states"),
    (("ps_version",), "v9", "ps_version='v9' is not supported; supported: 'v1', 'v2'"),
    (("pad2square",), True, "pad2square=True is not supported; supported: False"),
    (("min_dynamic_patch",), 7, "min_dynamic_patch=7, max_dynamic_patch=6: at least 1, and the first at most"),
    (("min_dynamic_patch",), 0, "min_dynamic_patch=0"),
    (("downsample_ratio",), 0.3, "downsample_ratio=0.3 is not supported; supported: 1 / n"),
    (("force_image_size",), 42, "patches along a side of a tile=3 is not a multiple of 1 / downsample_ratio=2"),
    (("vision_config", "dropout"), 0.1, "vision_config.dropout=0.1 is not supported"),
    (("vision_config", "attention_dropout"), 0.1, "vision_config.attention_dropout=0.1 is not supported"),
    (("llm_config", "attention_dropout"), 0.1, "llm_config.attention_dropout=0.1 is not supported"),
    (("llm_config", "resid_pdrop"), 0.1, "llm_config.resid_pdrop=0.1 is not supported"),
    (("llm_config", "head_dim"), 15, "llm_config.head_dim=15 is not a multiple of rope's pairs=2"),
    (("llm_config", "num_attention_heads"), 6, "llm_config.hidden_size=64 is not a multiple of num_attention_heads=6"),
]


def changed(path, value) -> dict:
    config = tiny_config("dynamic_gqa")
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_values_that_are_not_supported(path, value, message):
    with pytest.raises(ValueError, match=message):
        InternVLChatConfig.from_dict(changed(path, value))


@pytest.mark.parametrize(("path", "value", "message"), [row for row in REFUSED if len(row[0]) == 1])
def test_overrides_are_validated(path, value, message):
    original = tiny_config("dynamic_gqa")
    with pytest.raises(ValueError, match=message):
        InternVLChatConfig.from_dict(original).with_overrides(**{path[0]: value})
    with pytest.raises(ValueError, match=message):
        InternVLChatConfig.from_dict(original, **{path[0]: value})


def test_overrides_make_a_copy():
    config = InternVLChatConfig.from_dict(tiny_config("dynamic_gqa"))
    before = config.to_dict()
    other = config.with_overrides(select_layer=-2, max_dynamic_patch=9, dtype="bfloat16")
    assert (other.select_layer, other.max_dynamic_patch, other.dtype) == (-2, 9, "bfloat16")
    assert config.to_dict() == before and other.llm_config is not config.llm_config
    changed = {name for name, value in other.to_dict().items() if value != before[name]}
    assert changed == {"select_layer", "max_dynamic_patch", "dtype"}
    assert type(other.llm_config) is type(config.llm_config)


@pytest.mark.parametrize("name", ["nonsense", "tile_side", "to_dict"])
def test_an_unknown_override_is_named(name):
    with pytest.raises(ValueError, match=f"'{name}' is neither an argument nor a field of InternVLChatConfig"):
        InternVLChatConfig.from_dict(tiny_config("dynamic_gqa")).with_overrides(**{name: 1})


def test_arguments_that_are_no_fields_are_returned():
    config, rest = InternVLChatConfig.from_dict(
        tiny_config("dynamic_gqa"), return_unused_kwargs=True, select_layer=-2, trust_remote_code=True
    )
    assert config.select_layer == -2 and rest == {"trust_remote_code": True}


def test_transformers_own_spelling_is_validated_too():
    from convert.mappings.hf_native import native_config

    native = native_config(tiny_config("dynamic_gqa"), 1002)
    assert InternVLConfig.from_dict(native, select_layer=-2).select_layer == -2
    with pytest.raises(ValueError, match="select_layer=99"):
        InternVLConfig.from_dict(native, select_layer=99)


def test_the_fields_of_qwen3_are_kept():
    """A head_dim of its own and q/k norm survive the way to a file and back."""
    config = InternVLChatConfig.from_dict(changed(("llm_config", "head_dim"), 24))
    llm = config.llm_config
    assert (llm.head_dim, llm.qk_norm, llm.sizes.query_width) == (24, False, 96)
    llm.qk_norm = True
    again = InternVLChatConfig.from_dict(config.to_diff_dict(saving_file=True)).llm_config
    assert (again.head_dim, again.qk_norm) == (24, True) and again.sizes == llm.sizes
