"""Log-probabilities in OpenAI's form: text, bytes and top log-probabilities of every token.

In: {id: log-probability} of each step, the sampled token first, as in `Piece` and `Response`. Out: JSON values.
A token's bytes are exact, also where they are part of a character.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from paddle_internvl.tokenizers.byte_level_bpe import ByteLevelBPETokenizer, bytes_of_token

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's token of a byte that is in no piece
_SPACE = "\u2581"  # SentencePiece's space
_MIN_LOGPROB = -9999.0  # OpenAI's number for almost impossible tokens; JSON has no infinity


def token_bytes(tokenizer, token: int) -> bytes:
    """The bytes that a token adds to a text."""
    added = tokenizer.added_tokens_decoder
    if token in added:
        return str(added[token]).encode()
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:  # a padding row of the model's embedding
        return b""
    if isinstance(tokenizer, ByteLevelBPETokenizer):
        return bytes_of_token(piece)
    match = _BYTE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece.replace(_SPACE, " ").encode()


class LogProbs:
    """Formats the log-probabilities of one request.

    Args:
        tokenizer: the model's.
        ends: ids of the tokens that end an answer, which are left out.
        num_top: number of top log-probabilities of each token.
    """

    def __init__(self, tokenizer, ends: Collection[int], num_top: int):
        self._tokenizer, self._ends, self._num_top = tokenizer, ends, num_top

    def chat(self, steps: Sequence[dict[int, float]]) -> dict:
        """`logprobs` of a chat's choice."""
        content = [
            {**self._entry(token, step[token]), "top_logprobs": [self._entry(*top) for top in self._top(step)]}
            for token, step in self._sampled(steps)
        ]
        return {"content": content, "refusal": None}

    def text(self, steps: Sequence[dict[int, float]], offset: int) -> dict:
        """`logprobs` of a text completion's choice.

        Args:
            steps: of the tokens.
            offset: characters before the first token.
        """
        sampled = self._sampled(steps)
        tokens = [self._text(token) for token, _ in sampled]
        return {
            "tokens": tokens,
            "token_logprobs": [max(step[token], _MIN_LOGPROB) for token, step in sampled],
            "top_logprobs": [
                {self._text(token): max(value, _MIN_LOGPROB) for token, value in self._top(step)} for _, step in sampled
            ],
            "text_offset": [offset + sum(map(len, tokens[:i])) for i in range(len(tokens))],
        }

    def _sampled(self, steps: Sequence[dict[int, float]]) -> list[tuple[int, dict[int, float]]]:
        """Sampled token and log-probabilities of each step, without the end tokens."""
        sampled = [(next(iter(step)), step) for step in steps]
        return [(token, step) for token, step in sampled if token not in self._ends]

    def _top(self, step: dict[int, float]) -> list[tuple[int, float]]:
        return sorted(step.items(), key=lambda item: -item[1])[: self._num_top]

    def _text(self, token: int) -> str:
        return token_bytes(self._tokenizer, token).decode("utf-8", errors="replace")

    def _entry(self, token: int, value: float) -> dict:
        return {
            "token": self._text(token),
            "logprob": max(value, _MIN_LOGPROB),
            "bytes": list(token_bytes(self._tokenizer, token)),
        }
