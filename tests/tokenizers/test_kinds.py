"""Every kind of tokenizer against transformers' slow one (Llama-3: its fast one, there is no other), line by line."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from paddlenlp.transformers import AutoTokenizer

from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT, IMG_END, IMG_START
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.prompt.thinking import THINKING_MESSAGE, join_thoughts
from paddle_internvl.tokenizers import tokenizer_class
from tests.tokenizers.vocabularies import KINDS, corpus

TEMPLATES = {"qwen2": "internvl2_5", "yi": "Hermes-2", "phi3": "phi3-chat", "llama3": "internlm2-chat"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return KINDS[kind](tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoTokenizer.from_pretrained(str(folder), use_fast=False)


@pytest.fixture(scope="module")
def ours(folder):
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True, use_fast=False)


@pytest.fixture(scope="module")
def lines(ours):
    return corpus(tuple(str(token) for token in ours.added_tokens_decoder.values()))


def test_ids_and_decoding(ours, theirs, lines):
    assert type(ours).__module__.startswith("paddle_internvl")
    for number, line in enumerate(lines):
        expected = theirs(line)["input_ids"]
        assert ours(line)["input_ids"] == expected, repr(line)
        assert ours.decode(expected) == theirs.decode(expected), repr(line)
        if number % 5 == 0:  # slow in transformers; `test_any_ids_decode_alike` compares more of them
            without = theirs.decode(expected, skip_special_tokens=True)
            assert ours.decode(expected, skip_special_tokens=True) == without, repr(line)


def test_threads_get_the_ids_of_sequential_calls(folder, ours, lines):
    """Of fresh tokenizers, whose first calls make what they keep."""
    lines = lines[:4]
    expected = [(ours(line)["input_ids"], ours.decode(ours(line)["input_ids"])) for line in lines]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(2):
            fresh, start = AutoTokenizer.from_pretrained(str(folder)), Barrier(4)

            def encoded(_):
                start.wait()  # noqa: B023
                ids = [fresh(line)["input_ids"] for line in lines]  # noqa: B023
                return [(row, fresh.decode(row)) for row in ids]  # noqa: B023

            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(encoded, range(4))) == [expected] * 4
    finally:
        sys.setswitchinterval(interval)


def test_any_ids_decode_alike(ours, theirs):
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.integers(0, len(theirs) - 1), min_size=1, max_size=30))
    def check(ids):
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)

    check()


def test_no_tokens_are_an_empty_text(ours):
    assert ours.convert_tokens_to_string([]) == ours.decode([]) == ours.decode([], skip_special_tokens=True) == ""
    assert ours.decode([ours.eos_token_id], skip_special_tokens=True) == ""


def test_vocabulary_and_named_tokens(ours, theirs):
    assert len(ours) == len(theirs)
    for name in ("bos", "eos", "pad", "unk"):
        token = getattr(theirs, f"{name}_token")
        if token is not None and theirs.convert_tokens_to_ids(token) is not None:
            assert getattr(ours, f"{name}_token_id") == theirs.convert_tokens_to_ids(token), name
    for token, i in theirs.get_added_vocab().items():
        assert ours.convert_tokens_to_ids(token) == i


def test_no_log_line_per_token(ours, monkeypatch):
    """PaddleNLP's `unk_token` logs an error whenever a tokenizer has none."""
    errors = []
    monkeypatch.setattr("paddlenlp.utils.log.logger.error", errors.append)
    ours("three plain words")
    assert not errors


def test_survives_saving(ours, lines, tmp_path):
    ours.save_pretrained(str(tmp_path))
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert type(again) is type(ours)
    for line in lines[::7]:
        assert again(line)["input_ids"] == ours(line)["input_ids"], repr(line)


def test_prompts_are_tokenized_as_whole_strings(kind, ours, theirs, lines):
    """`encode` puts a prompt together from parts; upstream tokenizes the rendered string."""
    template = get_conv_template(TEMPLATES[kind])
    plain = (line for line in lines[::97] if "<" not in line)
    for question in ("<image>\nWhat is it?", "  blanks \n", "\n\nHi", "你好", *plain):
        conversation = get_conv_template(TEMPLATES[kind])
        conversation.append_message(template.roles[0], question)
        conversation.append_message(template.roles[1], "An answer.")
        conversation.append_message(template.roles[0], "And?")
        conversation.append_message(template.roles[1], None)
        picture = IMG_START + IMG_CONTEXT * 3 + IMG_END
        expected = theirs(conversation.get_prompt().replace("<image>", picture, 1))["input_ids"]
        counts = [3] if "<image>" in question else []
        encoded = encode(ours, conversation, counts)
        assert encoded.ids == expected, repr(question)
        assert len(encoded.writers) == len(expected)
        asked = [i for i, writer in zip(encoded.ids, encoded.writers) if writer == "user"]
        written = question.removeprefix("<image>").strip() + "And?"
        blank = str.maketrans("", "", " \u2581\n\r\t")
        assert written.translate(blank) in ours.decode(asked).translate(blank)


def test_thoughts_are_tokenized_as_in_the_whole_string(kind, ours, theirs):
    """Qwen3's marks of thoughts and tools are tokens in every text, whoever wrote it; elsewhere they are text."""
    conversation = get_conv_template(TEMPLATES[kind])
    conversation.system_message = THINKING_MESSAGE
    turns = ("a <think>b</think> <tool_call>?", join_thoughts(" One.\n", "A <ref>dog</ref>."), "Sure?", None)
    for i, text in enumerate(turns):
        conversation.append_message(conversation.roles[i % 2], text)
    ids = encode(ours, conversation, []).ids
    assert ids == theirs(conversation.get_prompt())["input_ids"]
    if kind == "qwen2":
        assert ids.count(ours.convert_tokens_to_ids("<think>")) == 3


def test_special_tokens_off(ours):
    for token in map(str, ours.added_tokens_decoder.values()):
        ids = ours.convert_tokens_to_ids(ours.tokenize(token, split_special_tokens=True))
        assert ours.convert_tokens_to_ids(token) not in ids or token == "<unk>"


def test_marks_of_internvl3(tmp_path):
    """InternVL3 lists none of its own tokens in `additional_special_tokens`; slow tokenizers keep them in answers."""
    file = KINDS["qwen2"](tmp_path) / "tokenizer_config.json"
    content = json.loads(file.read_text())
    content["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
    file.write_text(json.dumps(content))
    ours = AutoTokenizer.from_pretrained(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), use_fast=False)
    text = "<think>so</think>\n<ref>the dog</ref><box>[[1, 2, 3, 4]]</box><|im_end|>"
    ids = theirs(text)["input_ids"]
    assert ours(text)["input_ids"] == ids
    answer = ours.decode(ids, skip_special_tokens=True)
    assert answer == theirs.decode(ids, skip_special_tokens=True)
    assert answer.count("ref>") == answer.count("box>") == answer.count("think>") == 2 and "<|im_end|>" not in answer


def test_unknown_kinds_are_refused():
    with pytest.raises(
        ValueError, match="tokenizer_class='BertTokenizer' is not supported; supported: InternLM2Tokenizer"
    ):
        tokenizer_class("BertTokenizer")


def test_an_unsupported_tokenizer_json(tmp_path):
    file = KINDS["llama3"](tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["type"] = "Unigram"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="only byte-level BPE is supported, not Unigram"):
        AutoTokenizer.from_pretrained(str(tmp_path))
