"""Repetition scores of a text without a judge: repeated n-grams, repeated lines, loops, compression ratio.

In: a text. Out: scores, each with the threshold above which a text is repetitive. Thresholds of n-grams and lines:
Gopher's (Rae et al. 2021, arXiv 2112.11446, table A1).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")  # an ideograph is a word
_LEAST_WORDS = 40  # shorter texts repeat n-grams by chance
_LEAST_BYTES = 400  # shorter texts compress badly
_LINE = 8  # characters of a line that counts
_GRAM, _LEAST_LOOP, _ROUNDS = 8, 24, 4  # characters compared, characters of a loop, rounds of a loop
_NGRAM = 10
THRESHOLDS = {"repeated_ngrams": 0.10, "repeated_lines": 0.30, "loop": 0.15, "compression": 0.85}


def repetition_scores(text: str) -> dict[str, float]:
    """Scores of a text, 0 (no repetition) to 1.

    Args:
        text: an answer.
    Returns:
        repeated_ngrams: share of 10-grams of words that occurred before.
        repeated_lines: share of lines that occurred before.
        loop: share of the text that is one piece four or more times in a row; 0 if it is below the threshold.
        compression: 1 - compressed size / size, by zlib.
    """
    return {
        "repeated_ngrams": _repeated_ngrams(text),
        "repeated_lines": _repeated_lines(text),
        "loop": _loop(text),
        "compression": _compression(text),
    }


def _repeated_ngrams(text: str) -> float:
    words = WORD.findall(text.lower())
    if len(words) < _LEAST_WORDS:
        return 0.0
    grams = list(zip(*(words[i:] for i in range(_NGRAM))))
    return 1 - len(set(grams)) / len(grams)


def _repeated_lines(text: str) -> float:
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if len(line) >= _LINE]
    if len(lines) < 3:
        return 0.0
    return sum(count - 1 for count in Counter(lines).values()) / len(lines)


def _loop(text: str) -> float:
    """Share of the longest loop; loops of blanks and of rules such as ---- do not count.

    In a loop of period p every piece of characters occurred p characters before. Loops below the threshold count as 0.
    """
    pieces = len(text) - _GRAM + 1
    repeated = pieces - len({text[i : i + _GRAM] for i in range(pieces)})
    if repeated < max(_LEAST_LOOP, THRESHOLDS["loop"] * len(text)) * (1 - 1 / _ROUNDS) - _GRAM:
        return 0.0
    last: dict[str, int] = {}
    longest = period = start = 0
    for i in range(pieces):
        piece = text[i : i + _GRAM]
        distance = i - last.get(piece, i)
        last[piece] = i
        if distance != period:
            period, start = distance, i - distance
        length = i + _GRAM - start
        if period and length > longest and length >= max(_LEAST_LOOP, _ROUNDS * period):
            longest = length if any(character.isalnum() for character in text[start : start + period]) else longest
    return longest / len(text) if longest else 0.0


def _compression(text: str) -> float:
    data = text.encode("utf-8", "surrogatepass")
    return 1 - len(zlib.compress(data, 1)) / len(data) if len(data) >= _LEAST_BYTES else 0.0
