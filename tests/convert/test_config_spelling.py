"""config.json as other tools write it: transformers 4.37, 4.55 and 5, PEFT, ms-swift."""

import json

import pytest

from convert import CheckpointError
from convert.config_spelling import upstream_spelling
from convert.folder import read_config, token_id
from tests.families import tiny_config


@pytest.fixture
def config():
    return tiny_config("dynamic_gqa")


def with_llm(config, **fields):
    return {**config, "llm_config": {**config["llm_config"], **fields}}


def test_upstreams_own_stays(config):
    assert upstream_spelling(config) == config


@pytest.mark.parametrize("architectures", [None, [], ["PeftModelForCausalLM"]])
def test_the_architecture_follows_the_model_type(config, architectures):
    assert upstream_spelling(with_llm(config, architectures=architectures)) == config
    without = {name: value for name, value in config["llm_config"].items() if name != "architectures"}
    assert upstream_spelling({**config, "llm_config": without}) == config


def test_an_unknown_model_type_keeps_its_architecture(config):
    other = with_llm(config, architectures=["MistralForCausalLM"], model_type="mistral")
    assert upstream_spelling(other) == other


def test_dtype_is_torch_dtype(config):
    config = {**config, "torch_dtype": "bfloat16"}
    newer = {name: value for name, value in config.items() if name != "torch_dtype"}
    assert upstream_spelling({**newer, "dtype": "bfloat16"}) == config


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", ["type", "rope_type"])
def test_rope(config, key, name):
    """One of the two fields, with `type` or `rope_type`; `rope_parameters` holds the base too."""
    llm = {field: value for field, value in config["llm_config"].items() if field not in ("rope_scaling", "rope_theta")}
    theta = {"rope_theta": 500000.0}
    for scaling in ({"type": "dynamic", "factor": 2.0}, {"type": "default"}, None):
        spelled = scaling and {name: scaling["type"], **{k: v for k, v in scaling.items() if k != "type"}}
        written = {**theta, key: spelled} if key == "rope_scaling" else {key: {**theta, **(spelled or {})}}
        llm_config = upstream_spelling({**config, "llm_config": {**llm, **written}})["llm_config"]
        assert llm_config["rope_theta"] == 500000.0 and "rope_parameters" not in llm_config
        expected = None if not scaling or scaling["type"] == "default" else scaling
        assert (llm_config.get("rope_scaling") or None) == expected


def test_a_rope_that_upstream_has_not_is_refused(config):
    layers = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(CheckpointError, match="several kinds of layers"):
        upstream_spelling(with_llm(config, rope_parameters=layers))
    with pytest.raises(CheckpointError, match="partial_rotary_factor"):
        upstream_spelling(with_llm(config, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}))


def test_byte_order_marks(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    assert read_config(tmp_path) == config


def test_image_token_of_each_tokenizer_file(tmp_path):
    files = {
        "tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "<IMG_CONTEXT>"}}},
        "added_tokens.json": {"<IMG_CONTEXT>": 7},
        "tokenizer.json": {"added_tokens": [{"id": 7, "content": "<IMG_CONTEXT>"}]},
    }
    assert token_id(tmp_path, "<IMG_CONTEXT>") is None
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        assert token_id(tmp_path, "<IMG_CONTEXT>") == 7
        (tmp_path / name).unlink()


@pytest.mark.parametrize("case", ["qwen2", "llama", "phi3_su"])
def test_a_field_that_a_file_leaves_out_has_the_familys_default(case):
    """As transformers reads the same file."""
    import transformers

    llm = tiny_config(case)["llm_config"]
    theirs = getattr(transformers, llm["architectures"][0].replace("ForCausalLM", "Config"))()
    kept = {name: llm[name] for name in ("model_type", "architectures", "hidden_size")}
    for name, value in upstream_spelling(kept).items():
        if name not in kept:
            assert getattr(theirs, name) == value, name
    assert {"rms_norm_eps", "rope_theta"} <= upstream_spelling(kept).keys()
    assert upstream_spelling({**kept, "rope_theta": 5.0})["rope_theta"] == 5.0
