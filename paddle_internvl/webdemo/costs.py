"""Token count of a question before it is sent, from the sizes of its pictures: nothing is decoded.

The numbers are those of `chat.messages.count_tokens`, fast enough to follow typing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paddle_internvl.media.options import parse_options
from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.uploads import Attachment


@dataclass(frozen=True)
class PromptCost:
    """Tokens of a prompt.

    Attributes:
        total: all tokens.
        visual: those of the pictures.
        grids: tile grids of the pictures of each new attachment; None: a server cut it in a way of its own.
        tile_tokens: visual tokens of a tile.
    """

    total: int
    visual: int
    grids: list[list[TileGrid | None]]
    tile_tokens: int


@dataclass(frozen=True)
class _PictureSize:
    """Stands for a picture in `chat.messages.parse`, which needs only its size in pixels."""

    size: tuple[int, int]


def _open_sizes(kind: str, source: Attachment, options: Mapping) -> tuple[list[_PictureSize], dict]:
    return [_PictureSize(size) for size in source.sizes], parse_options(kind, options).tiles


def prompt_cost(
    model, tokenizer, state: SessionState, question: str, attachments: Sequence[Attachment], **prompt_options
) -> PromptCost:
    """Count the tokens of a conversation with a new question.

    Args:
        model, tokenizer, prompt_options: see `chat.messages.parse`.
        state: of the visitor.
        question, attachments: of the new question.
    Raises:
        ValueError: see `chat.messages.parse`.
    """
    from paddle_internvl.chat.messages import parse  # imports Paddle, which the page does without

    messages = state.messages(question, attachments, lambda attachment: attachment.part(attachment))
    parsed = parse(model, messages, opener=_open_sizes, **prompt_options)
    new = sum(len(attachment.sizes) for attachment in attachments)
    grids = iter(parsed.grids[len(parsed.grids) - new :])
    return PromptCost(
        len(parsed.ids(tokenizer)),
        sum(cost.tokens for cost in parsed.costs),
        [[next(grids) for _ in attachment.sizes] for attachment in attachments],
        model.num_image_token,
    )
