"""One answer on its way through an engine: what is asked, how far it has come, what it holds. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import paddle

from paddle_internvl.engine.blocks import BlockPool
from paddle_internvl.engine.paged_cache import BLOCK
from paddle_internvl.engine.prefix import Span, block_keys
from paddle_internvl.engine.request import Piece, RequestState
from paddle_internvl.engine.seeing import Seeing
from paddle_internvl.generation.sampling import Sampler


class Stage(Enum):
    """Where a sequence is."""

    WAITING = "waiting for room"
    VISION = "its pictures are in the vision tower"
    PREFILL = "its prompt is prefilled"
    DECODE = "its answer is decoded"
    ENDED = "ended"


class Sequence:
    """An answer, and what the engine keeps for it.

    Attributes:
        deliver: is given every `Piece`, or the exception that ended the request. seeing: its pictures.
        embeds: [1, L, D] of the prompt while it is read. last: int64 [1], its latest token, on the device.
        blocks: KV blocks held, in order. length: positions whose keys and values are there, or launched.
        promised: blocks reserved and not taken. begun: the step it was admitted at.
    """

    def __init__(self, answer: RequestState, deliver: Callable[[Piece | Exception], None], seeing: Seeing):
        self.answer, self.deliver, self.seeing = answer, deliver, seeing
        self.sampler = Sampler(answer.config, 1, first=answer.index)
        self.stage = Stage.WAITING
        self.cancelled = False
        self.embeds: paddle.Tensor | None = None
        self.last: paddle.Tensor | None = None
        self.blocks: list[int] = []
        self.length = self.promised = self.begun = 0
        self._keys: list[bytes] = []
        self._said = 0  # blocks whose content the pool was told

    @property
    def prompt_ids(self) -> list[int]:
        return self.answer.prompt.ids

    @property
    def unread(self) -> int:
        """Prompt tokens whose keys and values are not there yet."""
        return len(self.prompt_ids) - self.length

    @property
    def full(self) -> bool:
        """Whether as many tokens are launched as there may be."""
        return self.length - len(self.prompt_ids) + 1 >= self.answer.limit

    @property
    def blocks_needed(self) -> int:
        """The most blocks it can come to hold."""
        return -(-(len(self.prompt_ids) + self.answer.limit) // BLOCK)

    def find(self, pool: BlockPool, pictures: list[Span]) -> None:
        """Begin behind what an earlier prompt left. The last token is always read anew, for its logits."""
        self._keys = block_keys(self.prompt_ids, pictures, BLOCK)
        self._pictures = pictures
        self.blocks = pool.share(self._keys[: (len(self.prompt_ids) - 1) // BLOCK])
        self.promised -= len(self.blocks)
        self.length = len(self.blocks) * BLOCK
        self._said = len(self.blocks)

    def make_room(self, pool: BlockPool, new: int) -> None:
        """Take the blocks that `new` more positions need."""
        count = max(0, -(-(self.length + new) // BLOCK) - len(self.blocks))
        self.blocks += pool.take(count)
        self.promised -= count

    def tell(self, pool: BlockPool) -> None:
        """Let the pool know the full blocks of the prompt, for prompts to come."""
        full = min(self.length // BLOCK, len(self._keys))
        for i in range(self._said, full):
            pool.know(self.blocks[i], self._keys[i])
        self._said = max(self._said, full)

    def tell_all(self, pool: BlockPool, most: float) -> None:
        """As `tell`, with the blocks of the answer, up to `most` positions: the next round's prompt holds them."""
        written = [*self.prompt_ids, *self.answer.ids[:-1]]  # the last token was not fed, or for nothing
        written = written[: int(min(len(written), most))]
        self._keys = block_keys(written, self._pictures, BLOCK)
        self.tell(pool)

    def let_go(self, pool: BlockPool) -> None:
        """Give back everything."""
        pool.release(self.blocks)
        pool.give_back(self.promised)
        self.blocks, self.promised, self.embeds, self.last = [], 0, None, None
        self.stage = Stage.ENDED
