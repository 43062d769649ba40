"""The engine: continuous batching. Requests join and leave between decode steps, each answered as if it were alone.

In: `RequestState`s of prompts. Out: `Piece`s, to each request's `deliver`. A step decodes one token of every running
sequence, then prefills a chunk of prompt tokens, then runs the vision tower for a moment, so that neither long prompts
nor many pictures delay running answers. A failure ends only the request that it happens in.

One thread calls an engine; `engine_thread` has one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np
import paddle

from paddle_internvl import runtime, timing
from paddle_internvl.engine.block_pool import BlockPool
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.decode import graph_factory
from paddle_internvl.engine.in_flight import InFlightTokens, Token
from paddle_internvl.engine.model_runner import ModelRunner
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE
from paddle_internvl.engine.prefix_cache import picture_spans
from paddle_internvl.engine.request import ContextOverflowError, Piece, Prompt, RequestFailedError, RequestState
from paddle_internvl.engine.scheduler import Scheduler
from paddle_internvl.engine.sequence import Sequence, Stage
from paddle_internvl.engine.stats import Counters
from paddle_internvl.engine.tensor_parallel_runner import TensorParallelRunner
from paddle_internvl.engine.vision import PendingPictures, VisionScheduler
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import ConstraintError
from paddle_internvl.ops import transfers
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT


class Engine:
    """Continuous batching on one model.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's tokenizer.
        config: settings, all of them given: see `engine_of`; session_len None: no limit but the KV cache.
        runner: a model runner with a KV cache for `config.cache_tokens`; None: a new one.
    Raises:
        ValueError: `config.cuda_graph`, and decode steps that can't be captured.
    Attributes:
        scheduler: waiting and admitted sequences.
        runner: the model runner.
        pool: the block pool.
        counters: totals.
        should_yield: polled between the layers of the vision tower; True ends the step.
    """

    def __init__(self, model, tokenizer, config: EngineConfig, runner: ModelRunner | None = None):
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.counters = Counters()
        self.pool = BlockPool(-(-config.cache_tokens // BLOCK_SIZE))
        self.runner = _runner(model, self.pool.total, config.cuda_graph) if runner is None else runner
        self.scheduler = Scheduler(self.pool, config.max_batch_size)
        self.should_yield: Callable[[], bool] = lambda: False
        self._vision = VisionScheduler(self.runner.feature_steps, config.vision_max_batch_size)
        self._in_flight: deque[InFlightTokens] = deque()
        # Beyond this length the rotary factors, and with them a block's content, depend on the length of the text.
        self._max_reusable = model.language_model.model.rope.stable_length
        model.img_context_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)

    def request(self, prompt: Prompt, config: GenerationConfig, index: int = 0) -> RequestState:
        """A request for `add`; any thread may call this. Its answer is limited to what the KV cache can hold.

        Args:
            prompt: the prompt.
            config: the settings.
            index: number of the answer among the config's n.
        Raises:
            ContextOverflowError: the prompt leaves no room for an answer.
            ValueError: see `RequestState`.
        """
        capacity, length = self.pool.total * BLOCK_SIZE, len(prompt.ids)
        session_len = self.config.session_len or math.inf
        if capacity <= length < session_len:
            raise ContextOverflowError(
                f"{length} tokens of prompt and an answer are more than the KV cache holds, {capacity}; "
                "raise cache_tokens, or send a shorter prompt or fewer pictures"
            )
        return RequestState(self.model, self.tokenizer, prompt, config, min(session_len, capacity), index)

    def add(self, request: RequestState, deliver: Callable[[Piece | Exception], None]) -> Sequence:
        """Queue a request.

        Args:
            request: from `request`.
            deliver: called within `step` with each piece, or with the exception that ended the request.
        """
        sequence = Sequence(request, deliver, PendingPictures(request.pop_pictures(), self.model.feature_cache))
        self.scheduler.waiting.append(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Cancel a request at the next step."""
        sequence.cancelled = True

    def drop(self, sequence: Sequence) -> None:
        """Cancel a request now; not from within a step."""
        self.counters.cancelled += 1
        self.scheduler.finish(sequence)

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self.scheduler.running and not self.scheduler.waiting

    def step(self) -> None:
        """One round of decode, prefill and vision."""
        self.counters.steps += 1
        self.scheduler.steps = self.counters.steps
        with paddle.no_grad():
            for sequence in self.scheduler.sequences:
                if sequence.cancelled:
                    self.drop(sequence)
            self.scheduler.admit()
            self._decode()
            with timing.part("prompt"):
                self._prefill()
            with timing.part("vision"):
                self._run_vision()

    # ------------------------------------------------------------------------------------------------- decode
    def _decode(self) -> None:
        """Launch the next decode step and read the tokens launched before. Sequences that ended with the token now read
        have one more decode step in flight; its result is dropped."""
        batch = [s for s in self.scheduler.in_stage(Stage.DECODE) if not s.fully_launched]
        self._read_tokens(ahead=self._decode_batch(batch) if batch else 0)

    def _decode_batch(self, batch: list[Sequence]) -> int:
        """Launch a decode step of sequences; returns the number of batches in flight that it makes."""
        try:
            for sequence in batch:
                sequence.allocate(self.pool, 1)
            ids = paddle.concat([sequence.last_token for sequence in batch])
            logits = self.runner.decode(ids, [s.blocks for s in batch], [s.num_computed for s in batch])
            if any(sequence.request.masks for sequence in batch):
                # A mask depends on the token before. The device computes this step while the host reads that token,
                # and repeats it for a sequence whose mask takes longer than the step.
                self._read_tokens(ahead=0)
                rows = [i for i, sequence in enumerate(batch) if sequence.can_sample]
                if not rows:
                    return 0
                if len(rows) < len(batch):
                    batch, logits = [batch[i] for i in rows], logits.index_select(transfers.upload(np.array(rows)))
            self._launch(batch, logits)
        except Exception as error:
            unfinished = [sequence for sequence in batch if sequence.stage is not Stage.FINISHED]
            if len(unfinished) == len(batch) == 1:
                self._fail(batch[0], error)
                return 0
            self._free_memory(error)  # then one by one, so that only the sequences fail that caused it
            return sum(self._decode_batch([sequence]) for sequence in unfinished)
        for sequence in batch:
            sequence.num_computed += 1
        return 1

    def _launch(self, batch: list[Sequence], logits: paddle.Tensor) -> None:
        """Sample the next token of each sequence from logits [B, V]."""
        tokens = InFlightTokens(batch, logits)
        self._in_flight.append(tokens)
        for sequence, error in tokens.failed:
            self._fail(sequence, error)

    def _read_tokens(self, ahead: int) -> None:
        """Read tokens in flight and deliver them; the last `ahead` batches stay in flight where the host runs ahead of
        the device."""
        ahead = ahead if transfers.overlaps() else 0
        while self._in_flight and (len(self._in_flight) > ahead or not self.scheduler.running):
            for sequence, token in self._in_flight.popleft().wait():
                if sequence.stage is Stage.FINISHED:
                    continue
                if isinstance(token, Exception):
                    self._fail(sequence, token)
                else:
                    self._deliver(sequence, token)

    def _deliver(self, sequence: Sequence, token: Token) -> None:
        try:
            piece = sequence.request.append(token.id, token.log_probs)
        except Exception as error:
            self._fail(sequence, error)
            return
        self.counters.generated_tokens += 1
        if piece.response is not None:
            self.counters.finished += 1
            self.counters.failed_in_row = 0
            if self._reuses(sequence):
                sequence.publish_answer_blocks(self.pool, self._max_reusable)
            self.scheduler.finish(sequence)
        elif sequence.request.masks is not None:
            sequence.request.masks.advance(token.id)
        sequence.deliver(piece)

    # ------------------------------------------------------------------------------------------------- prefill
    def _prefill(self) -> None:
        budget = self.config.prefill_chunk
        while budget > 0:
            ready = self.scheduler.by_priority(
                Stage.PREFILL, lambda s: s.prompt_remaining, self.config.prefill_chunk
            )  # fmt: skip
            if not ready:
                return
            try:
                budget -= self._prefill_chunk(ready[0], budget)
            except Exception as error:
                self._fail(ready[0], error)

    def _prefill_chunk(self, sequence: Sequence, budget: int) -> int:
        """Prefill up to `budget` tokens of a prompt; returns how many."""
        if sequence.embeds is None:
            self._begin_prefill(sequence)
        start, prompt_length = sequence.num_computed, len(sequence.prompt_ids)
        count = min(budget, sequence.prompt_remaining)
        sequence.allocate(self.pool, count)
        embeds = sequence.embeds[:, start : start + count]
        logits = self.runner.prefill(embeds, sequence.blocks, start, prompt_length)
        sequence.num_computed += count
        self.counters.prompt_tokens += count
        if self._reuses(sequence):
            sequence.publish_blocks(self.pool)
        if logits is not None:
            sequence.embeds = None
            sequence.stage = Stage.DECODE
            self._launch([sequence], logits)
            self._read_tokens(ahead=len(self._in_flight))
        return count

    def _begin_prefill(self, sequence: Sequence) -> None:
        """Embed the prompt and reuse the KV blocks of its cached prefix."""
        ids, pictures = sequence.prompt_ids, sequence.pictures
        if self._reuses(sequence):
            lengths = [cost.tokens for cost in sequence.request.costs]
            spans = picture_spans(ids, self.model.img_context_token_id, pictures.keys, lengths)
            sequence.reuse_prefix(self.pool, spans)
            self.counters.reused_tokens += sequence.num_computed
        sequence.embeds = self.runner.embed(ids, pictures.visual_tokens())

    def _reuses(self, sequence: Sequence) -> bool:
        """Whether a sequence takes part in the prefix cache: not on a model whose weights may change."""
        return (
            self.config.enable_prefix_caching
            and self.model.is_prepared
            and len(sequence.prompt_ids) <= self._max_reusable
        )

    # ------------------------------------------------------------------------------------------------- vision
    def _run_vision(self) -> None:
        waiting = self.scheduler.by_priority(
            Stage.VISION, lambda s: s.pictures.remaining, self.config.vision_max_batch_size
        )
        failed = self._vision.step([s.pictures for s in waiting], self.should_yield)
        self.counters.vision_tiles = self._vision.computed_tiles
        for sequence in waiting:
            if sequence.pictures.complete:
                sequence.stage = Stage.PREFILL
            for pictures, error in failed:
                if pictures is sequence.pictures:
                    self._fail(sequence, error)

    # ------------------------------------------------------------------------------------------------- failures
    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a request that failed."""
        out_of_memory = self._free_memory(error)
        self.counters.failed += 1
        self.counters.failed_in_row += not isinstance(error, ConstraintError)  # the request's fault
        self.counters.out_of_memory += out_of_memory
        if sequence.stage is not Stage.FINISHED:
            if isinstance(error, FloatingPointError):  # NaN in a block would reach the block's next sequence
                self.pool.clear()
                self.runner.clear_blocks(sequence.blocks)
            self.scheduler.finish(sequence)
        sequence.deliver(error if isinstance(error, ConstraintError) else RequestFailedError.caused_by(error))

    def _free_memory(self, error: Exception) -> bool:
        """Free caches after an out-of-memory error; returns whether it was one."""
        out_of_memory = runtime.is_out_of_memory(error)
        if out_of_memory:
            self.model.feature_cache.clear()
            runtime.release_memory()
        return out_of_memory


def _runner(model, num_blocks: int, cuda_graph: bool) -> ModelRunner:
    make_graph = graph_factory(model) if cuda_graph else None
    if model.process_group is not None:
        return TensorParallelRunner(model, num_blocks)
    return ModelRunner(model, num_blocks, make_graph)
