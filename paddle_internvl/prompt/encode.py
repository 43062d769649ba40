"""A conversation to token ids, with room for the pictures: text can't forge what only the template may say.

In: a `Conversation`, a tokenizer of `paddle_internvl.tokenizers`, visual tokens per picture. Out: ids.
Image and role tokens in what users or models wrote are ordinary text here; only the grounding marks count as tokens.
For a conversation without such forgeries the ids are those of the whole rendered prompt, as upstream tokenizes it.
"""

from __future__ import annotations

from paddle_internvl.prompt.special_tokens import GROUNDING, IMG_CONTEXT, IMG_END, IMG_START
from paddle_internvl.prompt.templates import Conversation


def count_placeholders(conversation: Conversation) -> int:
    """How many pictures the user's turns have room for."""
    return sum(source == "picture" for _, source in conversation.pieces())


def encode_prompt(tokenizer, conversation: Conversation, visual_tokens: list[int]) -> list[int]:
    """Token ids of a conversation, BOS included where the tokenizer adds one.

    Args:
        tokenizer: an `AddedTokensTokenizer`. visual_tokens: for each picture, in the order of the `<image>` marks
            in the user's turns, how many `<IMG_CONTEXT>` it takes (tiles x N).
    Raises:
        ValueError: marks and pictures differ in number.
    """
    marks = count_placeholders(conversation)
    if marks != len(visual_tokens):
        raise ValueError(
            f"the prompt has {marks} <image> marks but {len(visual_tokens)} pictures were given; "
            "write one <image> per picture, and give the pictures of earlier turns again"
        )
    counts = iter(visual_tokens)
    parts: list[tuple[str, bool]] = []
    for text, source in conversation.pieces():
        if source == "picture":
            parts += [(IMG_START, True), *[(IMG_CONTEXT, True)] * next(counts), (IMG_END, True)]
        else:
            parts += tokenizer.split_added_tokens(text, only=None if source == "template" else GROUNDING)
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokens_of(parts))
    return tokenizer.build_inputs_with_special_tokens(ids)
