"""One decode step: the next token's logits of some sequences. Plain, or captured as CUDA graphs and played again.

In: the latest token of each, the blocks it holds, its length. Out: logits. A captured step reads its inputs from memory
that is allocated once and written in place; there is one for each size of a batch and of its longest sequence, both
rounded up to a power of two. What a batch lacks in rows writes to a block that is nobody's.

Paddle captures eager operations: `capture_begin` puts its own stream into capture, with a memory pool that stays
(paddle/phi/core/platform/cuda_graph_with_memory_pool.cc); FastDeploy decodes so (CudaGraphPiecewiseBackend, with
graph_opt_level 0). What may not happen within is a copy from or to the host. Not run on a card, so off by default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle

from paddle_internvl.engine.paged_cache import PagedCache
from paddle_internvl.ops.transfers import HostCopy, upload

_LEAST_BLOCKS = 16


class Decoding:
    """Decode steps as they come.

    Args:
        decoder: the language model. blocks: of its KV cache.
    Attributes:
        cache: theirs.
    """

    def __init__(self, decoder, blocks: int):
        self._decoder = decoder
        self.cache = decoder.new_cache_of(PagedCache, blocks)

    def __call__(self, ids: paddle.Tensor, tables: list[list[int]], lengths: list[int]) -> paddle.Tensor:
        """Logits float32 [B, V].

        Args:
            ids: int64 [B], the latest token of each. tables: blocks of each, with room for it. lengths: positions
                before it.
        """
        rows = self.cache.rows(tables, lengths, 1)
        positions = upload(np.array(lengths)).unsqueeze(-1)
        return self._decoder(input_ids=ids.unsqueeze(-1), position_ids=positions, cache=rows)[:, 0]


class CapturedDecoding(Decoding):
    """Decode steps played from graphs; each is captured when it is first needed. What is returned is written again by
    the next step.

    Args:
        graph: makes an empty graph, with Paddle's `capture_begin`, `capture_end` and `replay`.
    """

    def __init__(self, decoder, blocks: int, graph):
        super().__init__(decoder, blocks + 1)
        self._nobodys, self._graph = blocks, graph
        self._steps: dict[tuple[int, int], _Step] = {}

    def __call__(self, ids, tables, lengths):
        size = _power(len(tables)), max(_LEAST_BLOCKS, _power(max(map(len, tables))))
        if size not in self._steps:
            self._steps[size] = _Step(self._decoder, self.cache, self._nobodys, size, self._graph())
        return self._steps[size](ids, tables, lengths)


class _Step:
    """A step of `size` rows and blocks a row."""

    def __init__(self, decoder, cache: PagedCache, nobodys: int, size: tuple[int, int], graph):
        self._count, blocks = size
        self._nobodys, self._graph = nobodys, graph
        self._ids = paddle.zeros([self._count, 1], "int64")
        self._rows = cache.rows([[nobodys]] * self._count, [0] * self._count, 1, blocks)

        def run() -> paddle.Tensor:
            rows = self._rows
            return decoder(input_ids=self._ids, position_ids=rows.lengths.unsqueeze(-1) - 1, cache=rows)[:, 0]

        HostCopy(run()).wait()  # what kernels set up at their first use is set up before
        graph.capture_begin()
        try:
            self._logits = run()
        finally:
            graph.capture_end()

    def __call__(self, ids: paddle.Tensor, tables: Sequence[Sequence[int]], lengths: Sequence[int]) -> paddle.Tensor:
        lacking = self._count - len(tables)
        self._ids[: len(tables)] = ids.unsqueeze(-1)
        self._rows.refill([*tables, *[[self._nobodys]] * lacking], [*lengths, *[0] * lacking])
        self._graph.replay()
        return self._logits[: len(tables)]


def _power(number: int) -> int:
    """The least power of two that is not below it."""
    return 1 << (number - 1).bit_length()


def decoding_of(model, blocks: int, cuda_graph: bool) -> Decoding:
    """Decode steps of a model with a KV cache of so many blocks, captured if that is wished.

    Raises:
        ValueError: they can't be captured; says why.
    """
    decoder = model.language_model
    if not cuda_graph:
        return Decoding(decoder, blocks)
    reasons = {
        "the model is not on a CUDA card": not decoder.get_input_embeddings().weight.place.is_gpu_place(),
        "the model is shared out over processes": getattr(model, "team", None) is not None,
        "its layers are on several devices": decoder.layer_devices is not None,
        "its rotary factors depend on the length (Phi-3)": bool(decoder.model.rope.short_factor),
    }
    for reason, true in reasons.items():
        if true:
            raise ValueError(f"cuda_graph: decode steps can't be captured: {reason}; leave cuda_graph out")
    from paddle.base.core import CUDAGraph
    from paddle.device.cuda import graphs

    place, pool = decoder.get_input_embeddings().weight.place, CUDAGraph.gen_new_memory_pool_id()
    card = paddle.CUDAPlace(place.gpu_device_id())
    return CapturedDecoding(decoder, blocks, lambda: graphs.CUDAGraph(card, pool_id=pool))
