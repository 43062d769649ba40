"""A sequence: one answer in the engine, with its stage, KV blocks and pictures. Decides nothing; see `scheduler`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import paddle

from paddle_internvl.engine.block_pool import BlockPool
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE
from paddle_internvl.engine.prefix_cache import PictureSpan, block_keys
from paddle_internvl.engine.request import Piece, RequestState
from paddle_internvl.engine.stats import PromptProgress
from paddle_internvl.engine.vision import PendingPictures
from paddle_internvl.generation.sampling import Sampler


class Stage(Enum):
    """Stage of a sequence."""

    WAITING = "waiting for admission"
    VISION = "pictures in the vision tower"
    PREFILL = "prefill of the prompt"
    DECODE = "decode of the answer"
    FINISHED = "finished, failed or cancelled"


class Sequence:
    """One answer in the engine.

    Args:
        request: the answer's state.
        deliver: called with every `Piece`, or with the exception that ended the request.
        pictures: the prompt's pictures.
    Attributes:
        sampler: of the answer's tokens, where its config needs one.
        stage: see `Stage`.
        cancelled: whether the sequence is dropped at the next step.
        embeds: [1, L, D] of the prompt, during prefill.
        last_token: int64 [1], the latest token, on the device.
        blocks: allocated KV blocks, in order.
        num_computed: positions whose keys and values are stored, launched ones included.
        reserved_blocks: blocks reserved and not allocated yet.
        admitted_step: number of the step that admitted the sequence.
    """

    def __init__(self, request: RequestState, deliver: Callable[[Piece | Exception], None], pictures: PendingPictures):
        self.request, self.deliver, self.pictures = request, deliver, pictures
        self.sampler = Sampler(request.config, 1, first=request.index)
        self.stage = Stage.WAITING
        self.cancelled = False
        self.embeds: paddle.Tensor | None = None
        self.last_token: paddle.Tensor | None = None
        self.blocks: list[int] = []
        self.num_computed = self.reserved_blocks = self.admitted_step = 0
        self._keys: list[bytes] = []  # prefix-cache keys of the full blocks
        self._spans: list[PictureSpan] = []
        self._published = 0  # blocks registered in the prefix cache

    @property
    def prompt_ids(self) -> list[int]:
        return self.request.prompt.ids

    @property
    def prompt_remaining(self) -> int:
        """Prompt tokens to prefill."""
        return len(self.prompt_ids) - self.num_computed

    @property
    def prompt_progress(self) -> PromptProgress:
        """Progress of vision and prefill."""
        tiles = sum(cost.tiles for cost in self.request.costs)
        return PromptProgress(tiles, tiles - self.pictures.remaining, len(self.prompt_ids), self.num_computed)

    @property
    def fully_launched(self) -> bool:
        """Whether as many tokens are launched as the answer may have."""
        return self.num_computed - len(self.prompt_ids) + 1 >= self.request.max_tokens

    @property
    def can_sample(self) -> bool:
        """Whether the sequence is not finished, and the mask of its next token is computed."""
        masks = self.request.masks
        return self.stage is not Stage.FINISHED and (masks is None or masks.is_ready())

    @property
    def max_blocks(self) -> int:
        """The most blocks that prompt and answer need."""
        return -(-(len(self.prompt_ids) + self.request.max_tokens) // BLOCK_SIZE)

    def reuse_prefix(self, pool: BlockPool, spans: list[PictureSpan]) -> None:
        """Reuse cached KV blocks of the longest shared prefix; the last prompt token is always recomputed, because its
        logits are needed."""
        self._spans = spans
        self._keys = block_keys(self.prompt_ids, spans, BLOCK_SIZE)
        self.blocks = pool.share(self._keys[: (len(self.prompt_ids) - 1) // BLOCK_SIZE])
        self.reserved_blocks -= len(self.blocks)
        self.num_computed = len(self.blocks) * BLOCK_SIZE
        self._published = len(self.blocks)

    def allocate(self, pool: BlockPool, new: int) -> None:
        """Allocate the blocks of `new` more positions."""
        count = max(0, -(-(self.num_computed + new) // BLOCK_SIZE) - len(self.blocks))
        self.blocks += pool.allocate(count)
        self.reserved_blocks -= count

    def publish_blocks(self, pool: BlockPool) -> None:
        """Register the full blocks of the prompt in the prefix cache."""
        full = min(self.num_computed // BLOCK_SIZE, len(self._keys))
        for i in range(self._published, full):
            pool.register(self.blocks[i], self._keys[i])
        self._published = max(self._published, full)

    def publish_answer_blocks(self, pool: BlockPool, max_length: float) -> None:
        """Register the full blocks of prompt and answer, up to `max_length` positions: the prefix of a next round."""
        # The last sampled token has no KV entry yet, or one from a speculative step whose result is discarded.
        ids = [*self.prompt_ids, *self.request.ids[:-1]]
        self._keys = block_keys(ids[: int(min(len(ids), max_length))], self._spans, BLOCK_SIZE)
        self.publish_blocks(pool)

    def release(self, pool: BlockPool) -> None:
        """Release every block and tensor; the sequence is finished."""
        pool.release(self.blocks)
        pool.unreserve(self.reserved_blocks)
        self.pictures.close()
        self.blocks, self.reserved_blocks, self.embeds, self.last_token = [], 0, None, None
        self.stage = Stage.FINISHED
