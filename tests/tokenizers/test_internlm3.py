"""InternLM3's tokenizer (InternVL3-9B) against the checkpoint's own code, string by string."""

import json

import pytest
from paddlenlp.transformers import AutoTokenizer

from paddle_internvl.tokenizers.internlm3 import InternLM3Tokenizer
from tests.random_checkpoints import ROOT
from tests.tokenizers.vocabularies import INTERNLM3, internlm3


@pytest.mark.parametrize("variant", INTERNLM3)
def test_ids_and_decoding_equal_upstream(variant, tmp_path):
    rows = json.loads((ROOT / "tests/goldens/internlm3_tokenizer.json").read_text())["variants"][variant]
    tokenizer = AutoTokenizer.from_pretrained(str(internlm3(tmp_path, variant)))
    assert type(tokenizer) is InternLM3Tokenizer and len(rows) > 150
    for text, ids, decoded, without_special in rows:
        assert tokenizer(text)["input_ids"] == ids, repr(text)
        assert tokenizer.decode(ids) == decoded, repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == without_special, repr(text)
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    again = AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert [again(text)["input_ids"] for text, *_ in rows[::9]] == [ids for _, ids, *_ in rows[::9]]
    assert [again.decode(ids) for _, ids, *_ in rows[::9]] == [decoded for *_, decoded, _ in rows[::9]]
