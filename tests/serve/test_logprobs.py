"""Log-probabilities in OpenAI's form; a token's bytes for every kind of tokenizer."""

import math

import pytest
from paddlenlp.transformers import AutoTokenizer

from paddle_internvl.serve.logprobs import LogProbs, token_bytes
from tests.tokenizers.vocabularies import KINDS

LINES = [
    "Hello, world!",
    "你好，世界 图片",
    "naïve café",
    "😀👍🏽 mixed ünïcode",
    "def f(x):\n    return x ** 2",
    "<img>",
    "𝒳 \x00 ﷽",
]


@pytest.fixture(scope="module", params=["internlm2", *KINDS])
def tokenizer(request, tiny, tmp_path_factory):
    if request.param == "internlm2":
        return tiny.tokenizer
    return AutoTokenizer.from_pretrained(str(KINDS[request.param](tmp_path_factory.mktemp("tokenizer"))))


@pytest.mark.parametrize("line", LINES)
def test_tokens_bytes_are_the_text(tokenizer, line):
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(line))
    assert ids and tokenizer.decode(ids).strip() == line.strip()
    assert b"".join(token_bytes(tokenizer, token) for token in ids).strip() == line.encode().strip()


def test_minus_infinity_is_a_number(tiny):
    log_probs = LogProbs(tiny.tokenizer, ends=(4, 5), num_top=1)
    steps = [{10: -math.inf, 11: -0.1}, {5: -0.2, 11: -3.0}]
    (entry,) = log_probs.chat(steps)["content"]
    assert entry["logprob"] == -9999.0 and [top["logprob"] for top in entry["top_logprobs"]] == [-0.1]
    assert log_probs.text(steps, 7)["text_offset"] == [7]
