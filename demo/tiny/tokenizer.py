"""The tiny model's own SentencePiece tokenizer, in the files and with the tokens of an InternLM2-based InternVL.

    python -m demo.tiny.tokenizer FOLDER

In: sentences drawn from the question tables. Out: tokenizer.model and the JSON files beside it. No model.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import sentencepiece

from demo.tiny import questions, scenes
from paddle_internvl.prompt.special_tokens import ADDED
from paddle_internvl.prompt.templates import get_conv_template

TEMPLATE = "internvl2_5"
SYSTEM_MESSAGE = "You are InternVL-tiny."
VOCABULARY = 1000  # pieces; the nine tokens InternVL adds come behind
# As in InternLM2's vocabulary, the role tokens stand on pieces that were left unused.
ROLE_TOKENS = {"<|im_start|>": "[UNUSED_TOKEN_146]", "<|im_end|>": "[UNUSED_TOKEN_145]"}


def sentences(seed: int = 0, count: int = 6000) -> list[str]:
    """Questions, answers and system message, in about the shares that training meets them."""
    rng = random.Random(seed)
    out = [SYSTEM_MESSAGE] * 200 + [get_conv_template(TEMPLATE).system_message] * 20
    makers = (scenes.objects_scene, scenes.text_scene, scenes.wide_scene)
    for _ in range(count):
        for question in questions.scene_questions(rng.choice(makers)(rng), rng, 4):
            out += [question.text, question.answer]
        pair = [scenes.objects_scene(rng), scenes.objects_scene(rng)]
        _, thing, motion = scenes.clip(rng, 2)
        for question in questions.pair_questions(pair, rng, 1) + questions.clip_questions(thing, motion, rng, 1):
            out += [question.text, question.answer]
    for question, answer in questions.TALK * 40:
        out += [question, answer]
    out += ["system", "user", "assistant", "Image-1:", "Image-2:", "Frame1:", "Frame2:"] * 2000
    out += ["".join(map(chr, range(33, 127)))] * 20
    return out


def train(folder: Path) -> None:
    """Write the tokenizer files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        # A line break is always a token of its own, so a turn is tokenized alike with and without its answer.
        user_defined_symbols=["\n", *ROLE_TOKENS.values()],
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2}
    ids |= {token: pieces.piece_to_id(unused) for token, unused in ROLE_TOKENS.items()}
    ids |= {token: pieces.get_piece_size() + i for i, token in enumerate(ADDED)}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    extra = [*ROLE_TOKENS, *ADDED]
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): {"content": token, **flags} for i, token in sorted(zip(ids.values(), ids))},
        "additional_special_tokens": extra,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
        **named,
    }  # fmt: skip
    files = {
        "tokenizer_config.json": config,
        "special_tokens_map.json": {"additional_special_tokens": extra, **named},
        "added_tokens.json": {token: i for token, i in ids.items() if i >= pieces.get_piece_size()},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    train(Path(sys.argv[1]))
