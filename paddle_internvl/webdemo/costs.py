"""What a question will cost, before it is asked, from sizes alone.

In: a conversation and a question. Out: each new picture's tile grid and the tokens of the whole prompt. No picture is
decoded, so it is quick enough to follow typing; the numbers are those of `chat.messages.count_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.tile_limits import TileControl, plan_grids
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.messages import Media, fill, parse_messages
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.webdemo.conversation import Visit
from paddle_internvl.webdemo.uploads import Attachment


@dataclass(frozen=True)
class Cost:
    """Tokens of a prompt; those of its pictures; the grids of each new attachment's pictures."""

    total: int
    visual: int
    grids: list[list[TileGrid]]


@dataclass(frozen=True)
class _Sized:
    size: tuple[int, int]


def cost(
    model, tokenizer, visit: Visit, question: str, attachments: Sequence[Attachment], system: str, max_num: int
) -> Cost:
    """See the module. Arguments as `chat.messages.parse` has them; `attachments` are the question's own.

    Raises:
        ValueError: see `chat.messages.parse`.
    """
    _, turns = parse_messages(visit.messages(question, attachments, lambda each: each.part(each)))
    media = [part for turn in turns for part in turn.parts if isinstance(part, Media)]
    # A frame is one tile, as in `preprocess.media.open_media`.
    sized = [[(_Sized(size), {"max_num": 1} if m.kind == "video" else {}) for size in m.source.sizes] for m in media]
    grids = plan_grids([each for one in sized for each in one], TileControl.of(model.config, max_num=max_num))
    conversation = get_conv_template(model.template)
    conversation.system_message = system
    fill(conversation, turns, [len(one) for one in sized])
    tokens = [grid.tiles * model.num_image_token for grid in grids]
    rest = iter(grids)
    of_each = [[next(rest) for _ in one] for one in sized]
    new = of_each[len(of_each) - len(attachments) :]
    return Cost(len(encode(tokenizer, conversation, tokens).ids), sum(tokens), new)
