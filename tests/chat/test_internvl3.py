"""InternVL3's folders: raw, with its tokenizer files and left-over fields, in transformers' layout, and AWQ."""

import json
import logging

import paddle
import pytest
import transformers
from paddlenlp.transformers import AutoModel, AutoTokenizer
from paddlenlp.utils.log import logger as paddlenlp_logger

from convert.streaming import convert
from paddle_internvl.cli.info import describe
from paddle_internvl.prompt.templates import get_conv_template
from tests.checkpoints.test_quantization import awq_folder, logits
from tests.random_checkpoints import TOKENIZER_FILES, random_checkpoint, random_pixels, tiny_config
from tests.tokenizers.vocabularies import qwen2

QUESTION = "<image>\nWhere is <ref>the dog</ref> in the <video>?"
SETTINGS = {"max_new_tokens": 6}
LISTED = ["<|im_start|>", "<|im_end|>"]  # `additional_special_tokens` has Qwen's own alone, without <ref> and <box>


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw folder: Qwen2.5's tokenizer without an unknown token, InternVL3-1B's config.json made small."""
    config = tiny_config("internvl3")
    config["llm_config"]["max_position_embeddings"] = 256  # the small vocabulary makes long prompts
    folder = random_checkpoint(tmp_path_factory.mktemp("internvl3") / "raw", config)
    for name in TOKENIZER_FILES:
        (folder / name).unlink()
    qwen2(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["unk_token"] is None
    tokenizer |= {"additional_special_tokens": LISTED, "chat_template": "{{ 'You are Qwen' }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module")
def model(raw):
    return AutoModel.from_pretrained(str(raw))


def pixels():
    return paddle.to_tensor(random_pixels(2, 56))


def test_a_chat_logs_nothing(raw, model, monkeypatch):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(paddlenlp_logger.logger, "handlers", [handler])
    tokenizer = AutoTokenizer.from_pretrained(str(raw), trust_remote_code=True, use_fast=False)
    _, history = model.chat(tokenizer, pixels(), QUESTION, SETTINGS, return_history=True)
    model.chat(tokenizer, pixels(), "And?", SETTINGS, history=history)
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def test_a_null_system_message_is_the_template_s(raw, model):
    assert json.loads((raw / "config.json").read_text())["system_message"] is None
    assert model.system_message == get_conv_template("internvl2_5").system_message != ""


def test_transformers_folder_answers_alike(raw, model, tmp_path):
    """Its tokenizer names the image tokens and has one more, <video>, beyond the rows of the embedding."""
    convert(raw, tmp_path / "pd", to_paddle=True)
    convert(tmp_path / "pd", tmp_path / "hf", to_paddle=False, layout="transformers")
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    theirs = transformers.Qwen2TokenizerFast.from_pretrained(
        str(raw), extra_special_tokens={**named, "video_token": "<video>"}
    )
    theirs.save_pretrained(str(tmp_path / "hf"))
    ours = AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    text = "a <ref>dog</ref><box>[[1, 2, 3, 4]]</box> <video>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    native = AutoModel.from_pretrained(str(tmp_path / "hf"))
    assert (native.system_message, native.img_context_token_id) == ("", model.img_context_token_id)
    native.system_message = model.system_message
    raw_tokenizer = AutoTokenizer.from_pretrained(str(raw))
    answer = native.chat(ours, pixels(), QUESTION, SETTINGS)
    assert answer == model.chat(raw_tokenizer, pixels(), QUESTION, SETTINGS)


def test_awq(raw, tmp_path):
    """The left-over fields and the null change nothing but the system message."""
    config = json.loads((raw / "config.json").read_text())
    config["llm_config"] |= {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    awq, _, _ = awq_folder(random_checkpoint(tmp_path / "float", config), tmp_path / "awq", 32)
    model = AutoModel.from_pretrained(str(awq))
    assert model.system_message == get_conv_template("internvl2_5").system_message
    expected = logits(model)
    plain = json.loads((awq / "config.json").read_text())
    for part, _, name in (field.rpartition(".") for field in describe(config)["fields without effect"]):
        del (plain[part] if part else plain)[name]
    (awq / "config.json").write_text(json.dumps(plain))
    assert (logits(AutoModel.from_pretrained(str(awq))) == expected).all()
