"""The bytes of every token of a vocabulary, and the exact text of ids.

In: a tokenizer of any kind. Out: bytes by id. An added token is special: it is no text, and a grammar has it by name
only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class Vocabulary:
    """Tokens of a tokenizer as bytes.

    Args:
        tokenizer: one of `paddle_internvl.tokenizers`.
        size: V, number of logits; ids that no token has are never generated.
    Attributes:
        tokens: V byte strings by id: text, the names of special tokens, and b"" where there is no token.
        special: ids of the special tokens.
        end: id of the end token that stands for all of them within a matcher.
        original: id of a text that an earlier token has too, as SentencePiece's byte tokens do -> the first such id.
        drops_blank: whether the tokenizer leaves out a blank at the beginning of a text, as SentencePiece does.
    """

    def __init__(self, tokenizer, size: int):
        texts = {i: text for i, text in tokenizer.bytes_of_ids().items() if i < size}
        names = {i: str(token).encode() for i, token in tokenizer.added_tokens_decoder.items() if i < size}
        special = {i: name for i, name in names.items() if i not in texts}
        for i in tokenizer.all_special_ids:
            if i < size and i not in special:
                special[i] = tokenizer.convert_ids_to_tokens(i).encode()
                texts.pop(i, None)
        self.tokens = [special.get(i, texts.get(i, b"")) for i in range(size)]
        self.special = frozenset(special)
        self.end = tokenizer.eos_token_id
        if self.end not in self.special:
            raise ValueError(f"response_format: end token {tokenizer.eos_token!r} is no special token below {size}")
        first: dict[bytes, int] = {}
        pairs = [(i, first.setdefault(texts[i], i)) for i in sorted(texts)]
        self.original = {i: original for i, original in pairs if i != original}
        blank = next((i for i, text in texts.items() if text[:1] == b" " and text[1:].isalpha()), None)
        self.drops_blank = blank is not None and not tokenizer.decode([blank]).startswith(" ")

    def text(self, ids: Sequence[int], hidden: Collection[int], drop_blank: bool = False) -> str:
        """Text of ids, byte by byte; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            hidden: special tokens that are left out.
            drop_blank: leave out a blank at the beginning.
        """
        raw = b"".join(self.tokens[i] for i in ids if i not in hidden)
        return (raw.removeprefix(b" ") if drop_blank else raw).decode("utf-8", errors="replace")
