"""InternLM2's tokenizer against upstream's slow tokenizer, string by string."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens.texts import SPECIAL
from tests.random_checkpoints import ROOT, TOKENIZER


@pytest.fixture(scope="module")
def rows():
    return json.loads((ROOT / "tests/goldens/internlm2_tokenizer.json").read_text())["rows"]


def test_ids_and_decoding_equal_upstream(tokenizer, rows):
    assert len(rows) > 500
    for text, ids, decoded, without_special in rows:
        assert tokenizer(text)["input_ids"] == ids, repr(text)
        assert tokenizer.decode(ids) == decoded, repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == without_special, repr(text)


def test_batch_decoding_and_tensors(tokenizer, rows):
    import paddle

    ids = [row[1] for row in rows[1:20]]
    assert tokenizer.batch_decode(ids) == [row[2] for row in rows[1:20]]
    assert tokenizer.decode(paddle.to_tensor(ids[0])) == rows[1][2]


def test_survives_saving(tokenizer, rows, tmp_path):
    from paddlenlp.transformers import AutoTokenizer

    tokenizer.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again.get_vocab() == tokenizer.get_vocab()
    for text, ids, decoded, _ in rows:
        assert again(text)["input_ids"] == ids
        assert again.decode(ids) == decoded


def test_vocabulary(tokenizer):
    assert len(tokenizer) == 1009 and tokenizer.vocab_size == 1000
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(1009))
    assert [vocabulary[token] for token in SPECIAL[:5]] == [1, 2, 0, 4, 5]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


def test_added_tokens(tokenizer):
    from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

    fresh = InternLM2Tokenizer.from_pretrained(str(TOKENIZER))
    assert fresh.add_tokens(["<new>", "<img>"]) == 1  # the second is there already
    assert fresh.convert_tokens_to_ids("<new>") == 1009 and len(fresh) == 1010
    assert fresh.tokenize("a<new>b")[1] == "<new>"
    assert tokenizer.convert_tokens_to_ids("<new>") == tokenizer.sp_model.unk_id()


def test_special_tokens_off(tokenizer):
    for token in SPECIAL:
        ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(token, split_special_tokens=True))
        assert tokenizer.convert_tokens_to_ids(token) not in ids
        assert tokenizer.sp_model.decode(ids) == token


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_text_survives(tokenizer, text):
    """Without added tokens and clean-up, decoding gives back any text (SentencePiece writes a blank as U+2581)."""
    text = text.replace("\u2581", "")
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text, split_special_tokens=True))
    assert tokenizer.sp_model.decode(ids) == text


def test_missing_and_broken_vocabulary(tmp_path):
    from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="tokenizer.model"):
        InternLM2Tokenizer.from_pretrained(str(tmp_path))
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="tokenizer.model"):
        InternLM2Tokenizer.from_pretrained(str(tmp_path))
