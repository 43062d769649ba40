"""Generation settings from every accepted source; unknown and unsupported ones are refused."""

import pytest
from transformers import GenerationConfig as TransformersConfig

from paddle_internvl import GenerationConfig
from paddle_internvl.generation.config import generation_config


def test_from_dict_and_keywords():
    config = generation_config({"max_new_tokens": 7, "do_sample": True, "temperature": 0.5}, top_k=3)
    assert (config.max_new_tokens, config.do_sample, config.temperature, config.top_k) == (7, True, 0.5, 3)
    assert generation_config() == GenerationConfig()
    assert generation_config(config, max_new_tokens=8).max_new_tokens == 8
    assert generation_config(config) is config


def test_lmdeploy_names():
    config = generation_config({"random_seed": 4, "stop_words": ["a", "b"], "stop_token_ids": [7], "logprobs": 2})
    assert config.seed == 4 and config.stop_strings == ("a", "b") and config.eos_token_id == (7,)
    assert config.log_probs and config.top_logprobs == 2
    assert generation_config({"logprobs": True}).log_probs and not generation_config({"logprobs": False}).log_probs


def test_paddlenlp_config():
    from paddlenlp.generation import GenerationConfig as PaddleNLPConfig

    config = generation_config(PaddleNLPConfig(max_new_tokens=9, do_sample=True, top_p=0.5, eos_token_id=[2, 5]))
    assert (config.max_new_tokens, config.do_sample, config.top_p, config.eos_token_id) == (9, True, 0.5, (2, 5))
    assert generation_config(PaddleNLPConfig(max_length=11)).max_new_tokens == 11
    beams = generation_config(PaddleNLPConfig(num_beams=3, length_penalty=0.5, early_stopping=True))
    assert (beams.num_beams, beams.length_penalty, beams.early_stopping) == (3, 0.5, True)
    with pytest.raises(ValueError, match="num_beam_groups=2 is not supported; use num_beam_groups=1"):
        generation_config(PaddleNLPConfig(num_beams=4, num_beam_groups=2))


TRANSFORMERS_5 = dict.fromkeys(TransformersConfig().to_dict())  # its to_dict() of a config without settings


@pytest.mark.parametrize("settings", [TransformersConfig().to_dict(), TRANSFORMERS_5], ids=["4", "5"])
def test_defaults_of_transformers_ask_for_nothing(settings):
    assert generation_config(settings) == GenerationConfig()
    assert generation_config({**settings, "max_new_tokens": 7}).max_new_tokens == 7


def test_transformers_config():
    assert generation_config(TransformersConfig()) == GenerationConfig()
    config = generation_config(TransformersConfig(max_new_tokens=9, do_sample=True, top_p=0.5, eos_token_id=[2, 5]))
    assert (config.max_new_tokens, config.do_sample, config.top_p, config.eos_token_id) == (9, True, 0.5, (2, 5))
    assert generation_config(TransformersConfig(suppress_tokens=[3], use_cache=False)).bad_token_ids == (3,)
    assert generation_config(TransformersConfig(max_length=300, max_new_tokens=9)).max_new_tokens == 9
    for settings, message in (
        ({"max_length": 300}, "max_length=300 is not supported; it counts the prompt too; use max_new_tokens"),
        ({"min_length": 3}, "min_length=3 is not supported; it counts the prompt too; use min_new_tokens"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5 is not supported; use guidance_scale=1.0"),
        ({"max_time": 2.0}, "max_time=2.0 is not supported; leave it out"),
        ({"sequence_bias": {(1,): 2.0}}, "sequence_bias=.* is not supported"),
        ({"bad_words_ids": [[1]]}, "use bad_token_ids"),
        ({"num_beams": 2, "early_stopping": "never"}, "early_stopping='never' is not supported; use True or False"),
    ):
        with pytest.raises(ValueError, match=message):
            generation_config(TransformersConfig(**settings))


def test_names_and_values_of_lmdeploy_and_vllm():
    assert GenerationConfig(random_seed=4, stop_words=["a"]) == GenerationConfig(seed=4, stop_strings=("a",))
    assert (
        GenerationConfig(top_k=-1) == GenerationConfig(top_k=0) and GenerationConfig(max_tokens=3).max_new_tokens == 3
    )
    assert generation_config(GenerationConfig(seed=4), seed=None).seed is None


def test_one_or_several_ends():
    assert generation_config({"eos_token_id": 5}).eos_token_id == (5,)
    assert generation_config({"eos_token_id": [5, 6]}).eos_token_id == (5, 6)
    assert generation_config({"stop": "x"}).stop_strings == ("x",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temprature": 1}, "generation setting 'temprature' is not known; known: bad_token_ids"),
        ({"num_beams": 2, "do_sample": True}, "num_beams=2 goes with neither do_sample, n nor log_probs"),
        ({"n": 2}, "n=2 answers of a greedy generation would be equal; set do_sample=True"),
        ({"top_logprobs": 2}, "top_logprobs=2 needs log_probs=True"),
        (
            {"response_format": {"type": "structural_tag"}},
            "response_format=.* is not supported; its type is text, json_object, json_schema",
        ),
        ({"frequency_penalty": 2.5}, r"frequency_penalty=2.5 is outside \[-2, 2\]"),
        ({"presence_penalty": 1, "num_beams": 2}, "num_beams=2 goes with neither frequency_penalty, presence_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias has the key 'a'; token ids are integers"),
        ({"logit_bias": {3: 101}}, r"logit_bias has 101 for token id 3; a bias is in \[-100, 100\]"),
        ({"logit_bias": 3}, "logit_bias=3 is no dict"),
        ({"top_k": -2}, "top_k=-2 is outside"),
        ({"top_p": 1.5}, r"top_p=1.5 is outside \[0, 1\]"),
        ({"temperature": -1}, "temperature=-1 is outside"),
        ({"seed": -1}, "seed=-1 is no integer of at least 0"),
        ({"seed": 1.5}, "seed=1.5 is no integer"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is outside"),
        ({"max_new_tokens": 1 << 21}, r"max_new_tokens=2097152 is outside \[1, 1048576\]"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5 is no integer"),
        ({"max_new_tokens": True}, "max_new_tokens=True is no integer"),
        ({"temperature": float("inf")}, "temperature=inf is outside"),
        ({"temperature": float("nan")}, "temperature=nan is outside"),
        ({"temperature": "hot"}, "temperature='hot' is no number"),
        ({"top_k": 2.5}, "top_k=2.5 is no integer"),
        ({"top_k": -2}, "top_k=-2 is outside"),
        ({"top_p": float("nan")}, "top_p=nan is outside"),
        ({"min_p": -0.1}, "min_p=-0.1 is outside"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 is outside"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty=inf is outside"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size=-1 is outside"),
        ({"n": 0}, "n=0 is outside"),
        ({"length_penalty": float("inf")}, "length_penalty=inf is outside"),
        ({"bad_token_ids": [-1]}, "bad_token_ids holds -1"),
        ({"eos_token_id": [2, "</s>"]}, "eos_token_id holds '</s>'; token ids are integers"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens=5 exceeds max_new_tokens=4"),
        ({"stop_strings": ["a", ""]}, "stop_strings holds ''; it takes texts of at least one character"),
        ({"stop_words": [7]}, "stop_strings holds 7"),
        ({"bad_words": [None]}, "bad_words holds None"),
        ({"do_sample": "false"}, "do_sample='false' is not supported; use True or False"),
        ({"skip_special_tokens": 0}, "skip_special_tokens=0 is not supported"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        generation_config(settings)


def test_other_types():
    with pytest.raises(TypeError, match="not list"):
        generation_config([1])


def test_temperature_zero_is_greedy():
    assert not GenerationConfig(do_sample=True, temperature=0).samples
    assert GenerationConfig(do_sample=True).samples
