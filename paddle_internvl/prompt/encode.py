"""Encoding of a conversation: token ids, and for each id who wrote it (the loss mask is made of that).

In: a `Conversation`, a tokenizer of `paddle_internvl.tokenizers`, the number of visual tokens of each picture. Out:
`Encoded`, whose ids are those of the whole rendered prompt, as upstream tokenizes it. User text can't forge image or
role tokens: only template text is split at all added tokens, other text at `writable_tokens` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddle_internvl.prompt.special_tokens import IMG_CONTEXT, IMG_END, IMG_START, writable_tokens
from paddle_internvl.prompt.templates import ASSISTANT, PICTURE, TEMPLATE, Conversation

IGNORED = -100  # label of a token that is not learnt


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation and the writer of each.

    Attributes:
        ids: token ids, `<IMG_CONTEXT>` once for each visual token.
        writers: of each id 'template', 'system', 'user', 'assistant' or 'picture'. The token that ends an answer is the
            assistant's: the model generates it.
        separators: places of the tokens behind the end tokens of answers that are learnt with them: all but the last
            token of a separator, as upstream's `preprocess_internvl2_5` has it.
    """

    ids: list[int]
    writers: list[str]
    separators: tuple[int, ...] = ()

    @property
    def answer_prefix(self) -> list[int]:
        """Ids of the beginning of an answer at the end of the prompt, which the model continues ([]: none)."""
        end = len(self.ids)
        while end and self.writers[end - 1] == ASSISTANT:
            end -= 1
        return self.ids[end:]

    def labels(self) -> list[int]:
        """Labels for training: the assistant's ids and `separators`, -100 (`IGNORED`) elsewhere; not shifted."""
        labels = [i if writer == ASSISTANT else IGNORED for i, writer in zip(self.ids, self.writers)]
        for k in self.separators:
            labels[k] = self.ids[k]
        return labels


def count_placeholders(conversation: Conversation) -> int:
    """Number of `<image>` placeholders in the user's turns."""
    return sum(piece.writer == PICTURE for piece in conversation.pieces())


def encode_prompt(tokenizer, conversation: Conversation, visual_tokens: Sequence[int]) -> list[int]:
    """Token ids of a conversation, without their writers. Arguments and errors: see `encode`."""
    return encode(tokenizer, conversation, visual_tokens).ids


def encode(tokenizer, conversation: Conversation, visual_tokens: Sequence[int]) -> Encoded:
    """Token ids of a conversation and the writer of each id.

    Args:
        tokenizer: an `AddedTokensTokenizer`; adds a BOS token where it is configured to.
        conversation: the turns in the model's template.
        visual_tokens: number of `<IMG_CONTEXT>` tokens (tiles x N) of each picture, in the order of the placeholders.
    Returns:
        The ids and their writers.
    Raises:
        ValueError: placeholders and pictures differ in number, or a text that holds half a surrogate pair.
    """
    placeholders = count_placeholders(conversation)
    if placeholders != len(visual_tokens):
        raise ValueError(
            f"the prompt has {placeholders} <image> marks but {len(visual_tokens)} pictures were given; "
            "write one <image> per picture, and give the pictures of earlier turns again"
        )
    counts, writable = iter(visual_tokens), writable_tokens(tokenizer)
    parts: list[tuple[str, bool]] = []  # text, and whether it is an added token
    writers: list[str] = []
    behind_answers: set[int] = set()  # parts
    for piece in conversation.pieces():
        if piece.writer == TEMPLATE and writers and writers[-1] == ASSISTANT and piece.text not in conversation.roles:
            behind_answers.add(len(parts))
        if piece.writer == PICTURE:
            split = [(IMG_START, True), *[(IMG_CONTEXT, True)] * next(counts), (IMG_END, True)]
        else:
            _require_characters(piece.text, piece.writer)
            split = tokenizer.split_added_tokens(piece.text, only=None if piece.is_markup else writable)
        parts += split
        writers += [piece.writer] * len(split)
    found = tokenizer.tokens_by_part(parts)
    ids = tokenizer.convert_tokens_to_ids([token for token, _ in found])
    around = tokenizer.build_inputs_with_special_tokens([None])
    before = around.index(None)
    owners = [part for _, part in found]
    separators = tuple(
        before + k for k, part in enumerate(owners[:-1]) if part in behind_answers and owners[k + 1] == part
    )
    return Encoded(
        tokenizer.build_inputs_with_special_tokens(ids),
        [TEMPLATE] * before + [writers[part] for part in owners] + [TEMPLATE] * (len(around) - before - 1),
        separators,
    )


def _require_characters(text: str, writer: str) -> None:
    """Refuse half a surrogate pair, which JSON's escapes can write; tokenizers fail on it in ways of their own."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {writer}'s text has half a surrogate pair at character {error.start}") from None
