"""Log-probabilities of given answers, against those that generation reports and those of transformers (golden)."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from PIL import Image

from paddle_internvl.chat.messages import build_prompt
from paddle_internvl.engine.request import ContextOverflowError
from tests.random_checkpoints import ROOT

PICTURE = {"type": "image", "image": Image.effect_noise((112, 56), 60)}
MESSAGES = [
    {"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "A circle."},
    {"role": "user", "content": "What color is it?"},
]
MADE = {"max_new_tokens": 12, "log_probs": True}


def test_scores_are_those_of_generation(models, case):
    model = models[case]
    made = [model.chat_messages(MESSAGES, {**MADE, "do_sample": True, "seed": seed}) for seed in range(3)]
    scores = model.log_probs(MESSAGES, [response.token_ids for response in made])
    for response, ours in zip(made, scores):
        np.testing.assert_allclose(ours, [next(iter(likely.values())) for likely in response.logprobs], atol=1e-5)


def test_a_plain_model_scores_as_a_prepared_one(models, hf_folders):
    plain = AutoModel.from_pretrained(str(hf_folders["llama"]), trainable=True)
    answers = ["A red square.", "Two.", ""]
    for ours, expected in zip(plain.log_probs(MESSAGES, answers), models["llama"].log_probs(MESSAGES, answers)):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_text_is_scored_with_its_end_token(models):
    model = models["qwen2"]
    text = "A red square."
    ids = [*model.tokenizer.convert_tokens_to_ids(model.tokenizer.tokenize(text))]
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    from_text, from_ids, alone = model.log_probs(MESSAGES, [text, [*ids, end], ""])
    np.testing.assert_allclose(from_text, from_ids, atol=1e-6)
    assert len(alone) == 1


def test_answers_do_not_depend_on_each_other(models, case):
    answers = ["A much longer answer than the other one.", "No."]
    together = models[case].log_probs(MESSAGES, answers)
    for answer, ours in zip(answers, together):
        np.testing.assert_allclose(models[case].log_probs(MESSAGES, [answer])[0], ours, atol=1e-6)


@pytest.mark.parametrize("row", range(2))
def test_scores_are_those_of_transformers(hf_folders, row, monkeypatch):
    """The golden holds the prompt's ids too: both networks read the same."""
    golden = json.loads((ROOT / "tests/goldens/log_probs.json").read_text())["rows"][row]
    model = AutoModel.from_pretrained(str(hf_folders[golden["case"]]), dtype="float32")
    monkeypatch.chdir(ROOT)  # where the golden's picture is
    how = {"system": "", "max_num": 2}
    assert build_prompt(model, model.tokenizer, golden["messages"], **how).ids == golden["prompt_ids"]
    scores = model.log_probs(golden["messages"], golden["answers"], **how)
    for ours, expected in zip(scores, golden["log_probs"]):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_impossible_answers_are_refused(models):
    model = models["qwen2"]
    with pytest.raises(ValueError, match="answer 1 has no tokens"):
        model.log_probs(MESSAGES, ["Yes.", []])
    with pytest.raises(ContextOverflowError, match="the limit is 90"):
        model.log_probs(MESSAGES, [[5] * 80], context_length=90)
    assert model.log_probs(MESSAGES, []) == []


def test_scoring_leaves_the_model_as_it_was(models):
    model = models["qwen2"]
    before = model.chat_messages(MESSAGES, MADE)
    model.log_probs(MESSAGES, ["Yes."])
    assert model.chat_messages(MESSAGES, MADE) == before and paddle.is_grad_enabled()
