"""Continuous batching: requests join and leave between decode steps, and each is answered as if it were alone.

In: `Prompt`s. Out: `Piece`s, to whoever asked. A step is one decode step of all that are speaking, then some prompt
tokens, then some tiles, so that neither a long prompt nor many pictures hold up running answers; what is short goes
first, what has waited long before that. What goes wrong costs the request it goes wrong with.

One thread calls it (`front` has one). Knows nothing of text but through `RequestState`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import paddle

from paddle_internvl import runtime, timing
from paddle_internvl.engine.blocks import BlockPool
from paddle_internvl.engine.decoding import decoding_of
from paddle_internvl.engine.launched import Launched
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.paged_cache import BLOCK
from paddle_internvl.engine.prefix import spans
from paddle_internvl.engine.request import ContextOverflowError, Piece, Prompt, RequestFailedError, RequestState
from paddle_internvl.engine.seeing import Seeing
from paddle_internvl.engine.sequence import Sequence, Stage
from paddle_internvl.engine.tower import Tower
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import PendingSample
from paddle_internvl.ops import transfers
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT

_NO_MEMORY = "not enough memory for this request; send fewer or smaller pictures, or a shorter prompt"


@dataclass
class Counters:
    """What an engine has done so far."""

    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    vision_tiles: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    failed_in_row: int = 0
    out_of_memory: int = 0


class Engine:
    """See the module.

    Args:
        model: an `InternVLChatModel`. tokenizer: its. limits: how much at a time.
    Raises:
        ValueError: decode steps that can't be captured.
    Attributes:
        waiting: not yet admitted. active: admitted. counters: what was done. hurry: asked between the layers of the
            vision tower whether somebody new waits.
    """

    def __init__(self, model, tokenizer, limits: EngineLimits):
        self.model, self.tokenizer, self.limits = model, tokenizer, limits
        self.counters = Counters()
        self.waiting: deque[Sequence] = deque()
        self.active: list[Sequence] = []
        self._launched: deque[Launched] = deque()  # not read yet
        self.hurry: Callable[[], bool] = lambda: False
        self._tower = Tower(model, limits.vision_tiles)
        self.pool = BlockPool(-(-limits.cache_tokens // BLOCK))
        self._decoding = decoding_of(model, self.pool.total, limits.cuda_graph)
        self._cache = self._decoding.cache
        # Beyond this many positions a block's content depends on the length of the text that it was read in.
        self._stable = model.language_model.model.rope.stable_length
        model.img_context_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)

    def answer(self, prompt: Prompt, config: GenerationConfig, index: int = 0) -> RequestState:
        """An answer that `add` takes.

        Args:
            index: which of the config's n answers to the prompt.
        Raises:
            ContextOverflowError: a prompt that leaves no room. ValueError: see `RequestState`.
        """
        answer = RequestState(self.model, self.tokenizer, prompt, config, self.limits.session_len, index)
        if len(prompt.ids) + answer.limit > self.pool.total * BLOCK:
            raise ContextOverflowError(
                f"{len(prompt.ids)} tokens of prompt and {answer.limit} of answer are more than the KV cache holds, "
                f"{self.pool.total * BLOCK}; lower max_new_tokens or raise cache_tokens"
            )
        return answer

    def add(self, answer: RequestState, deliver: Callable[[Piece | Exception], None]) -> Sequence:
        """Let an answer be made; `deliver` is given its pieces, or the exception that ended it, within `step`."""
        sequence = Sequence(answer, deliver, Seeing(answer.take_pictures(), self.model.feature_cache))
        self.waiting.append(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """End a request at the next step."""
        sequence.cancelled = True

    def drop(self, sequence: Sequence) -> None:
        """End a request now; not from within a step."""
        self.counters.cancelled += 1
        self._end(sequence)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.active and not self.waiting

    def step(self) -> None:
        """Go on with everything a little."""
        self.counters.steps += 1
        with paddle.no_grad():
            self._drop_cancelled()
            self._admit()
            self._decode()
            with timing.part("prompt"):
                self._prefill()
            with timing.part("vision"):
                self._see()

    def _drop_cancelled(self) -> None:
        for sequence in [s for s in (*self.active, *self.waiting) if s.cancelled]:
            self.drop(sequence)

    def _admit(self) -> None:
        while self.waiting and len(self.active) < self.limits.max_batch_size:
            sequence = self.waiting[0]
            pending = sum(s.seeing.remaining for s in self.active)
            if pending and pending + sequence.seeing.remaining > self.limits.pending_tiles:
                return
            if not self.pool.reserve(sequence.blocks_needed):
                return
            self.active.append(self.waiting.popleft())
            sequence.promised, sequence.begun = sequence.blocks_needed, self.counters.steps
            sequence.stage = Stage.PREFILL if sequence.seeing.wanted(1) is None else Stage.VISION

    def _in(self, stage: Stage) -> list[Sequence]:
        return [sequence for sequence in self.active if sequence.stage is stage]

    def _first(self, stage: Stage, work: Callable[[Sequence], int], chunk: int) -> list[Sequence]:
        """Those of a stage, least work first; every step of waiting counts as a quarter of a chunk of work done."""
        now = self.counters.steps
        return sorted(self._in(stage), key=lambda s: work(s) - (now - s.begun) * chunk / 4)

    def _see(self) -> None:
        ready = self._first(Stage.VISION, lambda s: s.seeing.remaining, self.limits.vision_tiles)
        for sequence, error in self._tower.go_on(ready, self.hurry):
            self._fail(sequence, error)
        self.counters.vision_tiles = self._tower.seen

    def _begin_reading(self, sequence: Sequence) -> None:
        """Embed the prompt, and find what need not be read."""
        ids = sequence.prompt_ids
        if self.limits.reuse and len(ids) <= self._stable:
            n = self.model.num_image_token
            lengths = [cost.tiles * n for cost in sequence.answer.costs]
            sequence.find(self.pool, spans(ids, self.model.img_context_token_id, sequence.seeing.keys, lengths))
            self.counters.reused_tokens += sequence.length
        sequence.embeds = self.model.embed(paddle.to_tensor([ids]), sequence.seeing.tokens())

    def _prefill(self) -> None:
        budget = self.limits.prefill_chunk
        while budget > 0:
            ready = self._first(Stage.PREFILL, lambda s: s.unread, self.limits.prefill_chunk)
            if not ready:
                return
            try:
                budget -= self._read(ready[0], budget)
            except Exception as error:
                self._fail(ready[0], error)

    def _read(self, sequence: Sequence, most: int) -> int:
        """Prefill up to `most` tokens of a prompt; returns how many."""
        if sequence.embeds is None:
            self._begin_reading(sequence)
        decoder, start = self.model.language_model, sequence.length
        count = min(most, sequence.unread)
        sequence.make_room(self.pool, count)
        rows = self._cache.rows([sequence.blocks], [start], count)
        positions = paddle.arange(start, start + count).unsqueeze(0)
        embeds = sequence.embeds[:, start : start + count]
        hidden = decoder.model(embeds, positions, None, rows, length=len(sequence.prompt_ids), last_only=True)
        sequence.length += count
        self.counters.prompt_tokens += count
        if self.limits.reuse and len(sequence.prompt_ids) <= self._stable:
            sequence.tell(self.pool)
        if sequence.unread == 0:
            sequence.embeds = None
            sequence.stage = Stage.DECODE
            self._launch([sequence], decoder.lm_head(hidden[:, -1]).astype("float32"))
            self._read_tokens(ahead=len(self._launched))
        return count

    def _decode(self) -> None:
        """Launch the next token of all that speak, and read those launched before. What turns out to have ended has a
        token launched for nothing."""
        before = len(self._launched)
        self._speak([sequence for sequence in self._in(Stage.DECODE) if not sequence.full])
        self._read_tokens(ahead=len(self._launched) - before)

    def _speak(self, speaking: list[Sequence]) -> None:
        if not speaking:
            return
        try:
            self._launch(speaking, self._next_logits(speaking))
        except Exception as error:
            if len(speaking) == 1:
                self._fail(speaking[0], error)
                return
            self._recover(error)
            for sequence in speaking:  # so that only those fail that fail by themselves
                self._speak([sequence])
            return
        for sequence in speaking:
            sequence.length += 1

    def _next_logits(self, speaking: list[Sequence]) -> paddle.Tensor:
        for sequence in speaking:
            sequence.make_room(self.pool, 1)
        ids = paddle.concat([sequence.last for sequence in speaking])
        return self._decoding(ids, [s.blocks for s in speaking], [s.length for s in speaking])

    def _launch(self, sequences: list[Sequence], logits: paddle.Tensor) -> None:
        """Let the next token of each be taken from logits [B, V]."""
        launched = Launched(sequences, logits, self._choose)
        self._launched.append(launched)
        for sequence, error in launched.failed:
            self._fail(sequence, error)

    def _choose(self, sequence: Sequence, logits: paddle.Tensor) -> PendingSample | None:
        return None if sequence.answer.config.takes_likeliest else sequence.sampler(logits)

    def _read_tokens(self, ahead: int) -> None:
        """Read what was launched, and pass it on to those who are still there. The last `ahead` launches are left for
        the next time if the device goes on with them meanwhile."""
        ahead = ahead if transfers.overlaps() else 0
        while self._launched and (len(self._launched) > ahead or not self.active):
            for sequence, token in self._launched.popleft().read():
                if sequence.stage is Stage.ENDED:
                    continue
                if isinstance(token, Exception):
                    self._fail(sequence, token)
                else:
                    self._pass_on(sequence, *token)

    def _pass_on(self, sequence: Sequence, token: int, log_probs: dict[int, float] | None) -> None:
        try:
            piece = sequence.answer.take(token, log_probs)
        except Exception as error:
            self._fail(sequence, error)
            return
        self.counters.generated_tokens += 1
        if piece.response is not None:
            self.counters.finished += 1
            self.counters.failed_in_row = 0
            if self.limits.reuse and len(sequence.prompt_ids) <= self._stable:
                sequence.tell_all(self.pool, self._stable)
            self._end(sequence)
        sequence.deliver(piece)

    def _end(self, sequence: Sequence) -> None:
        if sequence.stage is Stage.WAITING:
            self.waiting.remove(sequence)
        else:
            self.active.remove(sequence)
        sequence.let_go(self.pool)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a request that went wrong."""
        lacking = self._recover(error)
        self.counters.failed += 1
        self.counters.failed_in_row += 1
        self.counters.out_of_memory += lacking
        if sequence.stage is not Stage.ENDED:
            if isinstance(error, FloatingPointError):  # what is not finite would spoil whoever gets the blocks next
                self.pool.forget()
                self._cache.clear(sequence.blocks)
            self._end(sequence)
        failure = RequestFailedError(_NO_MEMORY if lacking else "the request failed inside the engine", lacking)
        failure.__cause__ = error
        sequence.deliver(failure)

    def _recover(self, error: Exception) -> bool:
        """After an error for want of memory, give back what can be done without. Returns whether it was one."""
        lacking = runtime.is_out_of_memory(error)
        if lacking:
            self.model.feature_cache.clear()
            runtime.release_memory()
        return lacking
