"""Inputs of the text goldens: awkward strings for tokenizers, and conversations. Pure data; no torch, no Paddle."""

from __future__ import annotations

import random

# (question, tiles, num_patches_list, history); history None is a first turn.
CHATS = (
    ("Hello, who are you?", 0, None, None),
    ("What color is the circle?", 1, None, None),
    ("<image>\nPlease describe the image shortly.", 3, None, None),
    ("Image-1: <image>\nImage-2: <image>\nWhich image has more objects?", 3, [1, 2], None),
    ("你好，图中有什么？", 2, None, None),
    ("And the square?", 1, [1], [["<image>\nWhere is the circle?", "top left"]]),
    ("Can you tell me a story?", 0, None, [["Hello", "Hello! Show me a picture."], ["谢谢", "不客气。"]]),
    ("  two  spaces \n\n and <ref>marks</ref> ", 1, None, None),
)

SPECIAL = (
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>",
    "<box>", "</box>", "<quad>", "</quad>",
)  # fmt: skip
_FRAGMENTS = (
    *SPECIAL, " ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", "What color is the circle?", "red", "top left", "TIGER",
    "你好", "圆形是什么颜色？", "書生·万象", "日本語テキスト", "한국어", "😀", "👩‍👩‍👧", "🇨🇳", "é", "e\u0301", "ﬁ", "Ω≈ç√", "\u200b", "\ufeff",
    "0", "42", "1234567890", "3.14", "x = [1, 2, 3]", "def f(x):\n    return x", "<div class='a'>&amp;</div>", "http://a.b/c?d=e",
    ".", ",", "!", "?", "n't", "'s", "'m", " .", " ,", " '", "▁", "▁▁a", "\x00", "\x7f", "ÿ", "🫠", "<", "|im_end|>", "<|im_", "img>",
)  # fmt: skip


def corpus(seed: int = 0, count: int = 500) -> list[str]:
    """Strings of fragments joined at random, every fragment alone, and a few by hand."""
    rng = random.Random(seed)
    mixed = ["".join(rng.choices(_FRAGMENTS, k=rng.randint(2, 9))) for _ in range(count)]
    return ["", *_FRAGMENTS, *(f" {fragment} " for fragment in _FRAGMENTS), *mixed]
