"""Decode steps: the next token's logits of a batch of sequences, run as they come or replayed from CUDA graphs.

A captured step reads its inputs from memory that is allocated once and written in place. There is one graph for each
batch size and block count, both rounded up to a power of two; padding rows write to a block of no sequence.

Paddle captures eager operations: `capture_begin` puts its own stream into capture, with a memory pool that persists
(paddle/phi/core/platform/cuda_graph_with_memory_pool.cc); FastDeploy decodes so (CudaGraphPiecewiseBackend, with
graph_opt_level 0). A captured step must not copy from or to the host. Not run on a card, so off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle

from paddle_internvl.engine.paged_kv_cache import PagedKVCache
from paddle_internvl.ops.transfers import HostCopy, upload

_MIN_BLOCKS = 16  # of a captured step: short sequences share a graph


class DecodeRunner:
    """Runs decode steps.

    Args:
        decoder: the language model.
        num_blocks: of its KV cache.
    Attributes:
        cache: the paged KV cache.
    """

    def __init__(self, decoder, num_blocks: int):
        self._decoder = decoder
        self.cache = PagedKVCache(decoder, num_blocks)

    def __call__(self, ids: paddle.Tensor, block_tables: list[list[int]], lengths: list[int]) -> paddle.Tensor:
        """Logits of the next token, float32 [B, V].

        Args:
            ids: int64 [B], the latest token of each sequence.
            block_tables: KV blocks of each sequence, the new position included.
            lengths: positions of each sequence before the new one.
        """
        rows = self.cache.rows(block_tables, lengths, 1)
        positions = upload(np.array(lengths)).unsqueeze(-1)
        return self._decoder(input_ids=ids.unsqueeze(-1), position_ids=positions, cache=rows)[:, 0]


class CudaGraphDecodeRunner(DecodeRunner):
    """Replays decode steps from CUDA graphs, each captured at its first use. The next step overwrites the logits.

    Args:
        decoder: the language model.
        num_blocks: of its KV cache, without the padding block.
        make_graph: returns an empty graph with Paddle's `capture_begin`, `capture_end` and `replay`.
    """

    def __init__(self, decoder, num_blocks: int, make_graph: Callable[[], object]):
        super().__init__(decoder, num_blocks + 1)
        self._padding_block, self._make_graph = num_blocks, make_graph
        self._steps: dict[tuple[int, int], _CapturedStep] = {}

    def __call__(self, ids, block_tables, lengths):
        size = _power_of_two(len(block_tables)), max(_MIN_BLOCKS, _power_of_two(max(map(len, block_tables))))
        if size not in self._steps:
            self._steps[size] = _CapturedStep(self._decoder, self.cache, self._padding_block, size, self._make_graph())
        return self._steps[size](ids, block_tables, lengths)


class _CapturedStep:
    """A captured decode step of `size` = (rows, blocks of a row)."""

    def __init__(self, decoder, cache: PagedKVCache, padding_block: int, size: tuple[int, int], graph):
        self._batch, num_blocks = size
        self._padding_block, self._graph = padding_block, graph
        self._ids = paddle.zeros([self._batch, 1], "int64")
        self._rows = cache.rows([[padding_block]] * self._batch, [0] * self._batch, 1, num_blocks)

        def run() -> paddle.Tensor:
            rows = self._rows
            return decoder(input_ids=self._ids, position_ids=rows.lengths.unsqueeze(-1) - 1, cache=rows)[:, 0]

        HostCopy(run()).wait()  # kernels set up their workspaces at the first run, outside of the capture
        graph.capture_begin()
        try:
            self._logits = run()
        finally:
            graph.capture_end()

    def __call__(self, ids: paddle.Tensor, block_tables: Sequence[Sequence[int]], lengths: Sequence[int]):
        padding = self._batch - len(block_tables)
        self._ids[: len(block_tables)] = ids.unsqueeze(-1)
        self._rows.refill([*block_tables, *[[self._padding_block]] * padding], [*lengths, *[0] * padding])
        self._graph.replay()
        return self._logits[: len(block_tables)]


def _power_of_two(number: int) -> int:
    """The least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def graph_factory(model) -> Callable[[], object]:
    """A function that returns empty CUDA graphs for a model's decode steps.

    Raises:
        ValueError: the model's decode steps can't be captured; gives the reason.
    """
    decoder = model.language_model
    place = decoder.get_input_embeddings().weight.place
    obstacles = {
        "the model is not on a CUDA card": not place.is_gpu_place(),
        "the model is tensor-parallel": model.process_group is not None,
        "its layers are on several devices": decoder.layer_devices is not None,
        "its rotary factors depend on the length (Phi-3)": bool(decoder.model.rope.short_factor),
    }
    for obstacle, exists in obstacles.items():
        if exists:
            raise ValueError(f"cuda_graph: decode steps can't be captured: {obstacle}; leave cuda_graph out")
    from paddle.base.core import CUDAGraph
    from paddle.device.cuda import graphs

    pool, card = CUDAGraph.gen_new_memory_pool_id(), paddle.CUDAPlace(place.gpu_device_id())
    return lambda: graphs.CUDAGraph(card, pool_id=pool)
