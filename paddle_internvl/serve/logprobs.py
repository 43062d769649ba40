"""Log-probabilities in OpenAI's form: every token with its text, its bytes and the likeliest others.

In: per token {id: log-probability}, the chosen one first, as `Piece` and `Response` hold them. Out: JSON values.
A token's bytes are exact even where they are only part of a character.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from paddle_internvl.tokenizers.byte_level_bpe import ByteLevelBPETokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece writes a byte that is no piece
_BLANK = "\u2581"  # and a blank
_LEAST = -9999.0  # OpenAI's number for what is all but impossible; JSON has no infinity


@lru_cache(maxsize=1)
def _bytes_of_letters() -> dict[str, int]:
    from paddlenlp.transformers.gpt.tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}


def token_bytes(tokenizer, token: int) -> bytes:
    """The bytes that a token adds to a text."""
    added = tokenizer.added_tokens_decoder
    if token in added:
        return str(added[token]).encode()
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(tokenizer, ByteLevelBPETokenizer):
        letters = _bytes_of_letters()
        return b"".join(bytes([letters[c]]) if c in letters else c.encode() for c in piece)
    match = _BYTE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece.replace(_BLANK, " ").encode()


class LogProbs:
    """Writes log-probabilities of one request.

    Args:
        tokenizer: the model's. ends: ids of tokens that end an answer; they are no part of the text and left out.
        likeliest: how many other tokens are told.
    """

    def __init__(self, tokenizer, ends: Collection[int], likeliest: int):
        self._tokenizer, self._ends, self._likeliest = tokenizer, ends, likeliest

    def chat(self, steps: Sequence[dict[int, float]]) -> dict:
        """`logprobs` of a chat's choice."""
        content = [
            {**self._entry(chosen, step[chosen]), "top_logprobs": [self._entry(*each) for each in self._top(step)]}
            for chosen, step in self._told(steps)
        ]
        return {"content": content, "refusal": None}

    def text(self, steps: Sequence[dict[int, float]], offset: int) -> dict:
        """`logprobs` of a text completion's choice. offset: characters before the first token."""
        told = self._told(steps)
        tokens = [self._text(chosen) for chosen, _ in told]
        return {
            "tokens": tokens,
            "token_logprobs": [max(step[chosen], _LEAST) for chosen, step in told],
            "top_logprobs": [
                {self._text(token): max(value, _LEAST) for token, value in self._top(step)} for _, step in told
            ],
            "text_offset": [offset + sum(map(len, tokens[:i])) for i in range(len(tokens))],
        }

    def _told(self, steps: Sequence[dict[int, float]]) -> list[tuple[int, dict[int, float]]]:
        chosen = [(next(iter(step)), step) for step in steps]
        return [(token, step) for token, step in chosen if token not in self._ends]

    def _top(self, step: dict[int, float]) -> list[tuple[int, float]]:
        return sorted(step.items(), key=lambda item: -item[1])[: self._likeliest]

    def _text(self, token: int) -> str:
        return token_bytes(self._tokenizer, token).decode("utf-8", errors="replace")

    def _entry(self, token: int, value: float) -> dict:
        return {
            "token": self._text(token),
            "logprob": max(value, _LEAST),
            "bytes": list(token_bytes(self._tokenizer, token)),
        }
