"""Vocabularies trained for the tests, in the files of each kind of checkpoint, and a corpus to try them on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from paddle_internvl.prompt.special_tokens import ADDED
from paddle_internvl.tokenizers.byte_level_bpe import QWEN2_WORDS
from tests.goldens.texts import _FRAGMENTS
from tests.random_checkpoints import TOKENIZER

_LLAMA3_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "InternVL",
    "reads",
    "128",
    "pages",
    "of",
    "Paddle",
    "documentation",
    "and",
    "writes",
    "def",
    "f(x):",
    "return",
    "x",
    "**",
    "2",
    "#",
    "code",
    "你好",
    "世界",
    "图片",
    "描述",
    "这张",
    "图像",
    "东京",
    "서울",
    "é",
    "ü",
    "naïve",
    "I'm",
    "don't",
    "they've",
    "it's",
    "we'll",
    "3.14",
    "x1",
    "10000",
    "😀",
    "🎉",
    "<div>",
    "</div>",
    "https://example.org/a?b=c&d=e",
    "\xa0",
    "\u3000",
    "ﬁ",
    "Ａ",
    "１",
    "½",
    "²",
    "ﷺ",
    "Ω",
    "Å",
    "ῼ",
    "ḍ̇",
    "กำ",
    "क्षि",
]


def corpus(specials: tuple[str, ...], seed: int = 0, count: int = 1500) -> list[str]:
    """Lines of text: words of many scripts, code, digits, blanks, and special tokens inside the text."""
    rng = random.Random(seed)
    joints = (" ", " ", " ", "", "  ", "\n", "\t", "\r\n", "\n\n", " \n ")
    pool = [*_WORDS, *_FRAGMENTS, *specials, *specials]
    lines = []
    for _ in range(count):
        words = rng.choices(pool, k=rng.randint(1, 12))
        lines.append("".join(word + rng.choice(joints) for word in words))
    return ["", " ", *pool, *lines]


def sentences() -> list[str]:
    """What the vocabularies are trained on."""
    rng = random.Random(1)
    return [" ".join(rng.choices(_WORDS, k=12)) for _ in range(400)]


def flags(content: str, rstrip: bool = False, special: bool = True) -> dict:
    """An entry of `added_tokens_decoder`."""
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": rstrip, "single_word": False,
            "special": special}  # fmt: skip


def write(folder: Path, config: dict, added: dict[int, dict]) -> Path:
    """tokenizer_config.json, and a config.json that says whose folder it is."""
    extra = [row["content"] for row in added.values() if row["content"] in ADDED or row["content"].startswith("<|im")]
    whole = {
        **config,
        "added_tokens_decoder": {str(i): row for i, row in added.items()},
        "additional_special_tokens": extra,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(whole))
    (folder / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    return folder


def qwen2(folder: Path) -> Path:
    """vocab.json, merges.txt: byte-level BPE, special tokens behind."""
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(sentences(), trainer)
    bpe.model.save(str(folder))
    size = bpe.get_vocab_size()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *ADDED]
    added = {size + i: flags(name) for i, name in enumerate(names)}
    marks = ("<tool_call>", "<think>", "</think>")
    added |= {size + len(names) + i: flags(name, special=False) for i, name in enumerate(marks)}
    return write(folder, {
        "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "errors": "replace", "split_special_tokens": False,
        "clean_up_tokenization_spaces": False, "model_max_length": 8192,
    }, added)  # fmt: skip


def _sentencepiece(folder: Path, **options) -> int:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_prefix=str(folder / "tokenizer"), vocab_size=600, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2, **options,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return 600


def yi(folder: Path) -> Path:
    """Yi-34B with Hermes-2's role tokens: Llama's tokenizer, legacy, without BOS."""
    size = _sentencepiece(folder, unk_surface="<unk>")
    names = ["<|startoftext|>", "<|endoftext|>", "<|im_end|>", "<|im_start|>", *ADDED]
    added = {0: flags("<unk>"), **{size + i: flags(name) for i, name in enumerate(names)}}
    return write(folder, {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": False, "legacy": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<unk>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}, "model_max_length": 4096,
    }, added)  # fmt: skip


def phi3(folder: Path) -> Path:
    """Phi-3: Llama's tokenizer, not legacy, BOS, added tokens that eat the blanks to their right."""
    size = _sentencepiece(folder)
    names = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"]
    added = {0: flags("<unk>"), 1: flags("<s>"), 2: flags("</s>", rstrip=True)}
    added |= {size + i: flags(name, rstrip=name != "<|endoftext|>") for i, name in enumerate(names)}
    added |= {size + len(names) + i: flags(name) for i, name in enumerate(ADDED)}
    return write(folder, {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False,
        "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}, "model_max_length": 131072, "padding_side": "left",
        "use_default_system_prompt": False,
    }, added)  # fmt: skip


def llama3(folder: Path) -> Path:
    """Llama-3: a tokenizer.json alone, BOS from its post-processor, clean-up on decoding."""
    bpe = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(sentences(), trainer)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", *ADDED]
    bpe.add_special_tokens(names)
    bos = ("<|begin_of_text|>", bpe.token_to_id("<|begin_of_text|>"))
    bpe.post_processor = processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    bpe.save(str(folder / "tokenizer.json"))
    return write(folder, {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>",
        "pad_token": "<|end_of_text|>", "clean_up_tokenization_spaces": True, "model_max_length": 8192,
        "model_input_names": ["input_ids", "attention_mask"],
    }, {bpe.token_to_id(name): flags(name) for name in names})  # fmt: skip


KINDS = {"qwen2": qwen2, "yi": yi, "phi3": phi3, "llama3": llama3}


INTERNLM3 = {  # variant -> (add_dummy_prefix of tokenizer.model, fields of tokenizer_config.json)
    "plain": (False, {}),
    "prefix": (True, {"spaces_for_interleaved_special_tokens": True}),
    "bare": (True, {"add_prefix_space": False, "add_bos_token": False}),
}


def internlm3(folder: Path, variant: str) -> Path:
    """The bundled checkpoint's vocabulary in the files of an InternLM3."""
    prefix, fields = INTERNLM3[variant]
    model = sentencepiece_model_pb2.ModelProto.FromString((TOKENIZER / "tokenizer.model").read_bytes())
    model.normalizer_spec.add_dummy_prefix = prefix
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    config.pop("auto_map", None)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**config, "tokenizer_class": "InternLM3Tokenizer", **fields})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    return folder
