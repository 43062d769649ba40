"""The model runner: vision, prefill and decode of a model on its paged KV cache, as methods on tensors.

In: token ids, tiles and block tables. Out: visual tokens, embeddings and logits. No requests, no scheduling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import paddle

from paddle_internvl.engine.decode import CudaGraphDecodeRunner, DecodeRunner
from paddle_internvl.ops.transfers import upload


class ModelRunner:
    """Runs vision, prefill and decode of one model on one paged KV cache.

    Args:
        model: an `InternVLChatModel`.
        num_blocks: of the KV cache.
        make_graph: returns an empty CUDA graph; None: decode steps are not captured.
    """

    def __init__(self, model, num_blocks: int, make_graph: Callable[[], object] | None = None):
        self.model = model
        decoder = model.language_model
        if make_graph is None:
            self._decode = DecodeRunner(decoder, num_blocks)
        else:
            self._decode = CudaGraphDecodeRunner(decoder, num_blocks, make_graph)
        self.cache = self._decode.cache

    def feature_steps(self, tiles: np.ndarray) -> Iterator[paddle.Tensor | None]:
        """Run tiles [T, 3, S, S] through the vision tower: None after each layer, at last visual tokens [T, N, D]."""
        yield from self.model.feature_steps(upload(tiles))

    def embed(self, ids: Sequence[int], visual_tokens: paddle.Tensor | None) -> paddle.Tensor:
        """Embeddings [1, L, D] of a prompt with its visual tokens [T, N, D]."""
        return self.model.embed(upload(np.array([ids], np.int64)), visual_tokens)

    def prefill(self, embeds: paddle.Tensor, blocks: list[int], start: int, prompt_length: int) -> paddle.Tensor | None:
        """Prefill a chunk of a prompt.

        Args:
            embeds: [1, L, D] of the chunk.
            blocks: KV blocks of the sequence, the chunk included.
            start: position of the chunk's first token.
            prompt_length: tokens of the whole prompt, on which some rotary factors depend.
        Returns:
            Logits of the first generated token, float32 [1, V], after the last chunk; None before.
        """
        decoder, stop = self.model.language_model, start + embeds.shape[1]
        rows = self.cache.rows([blocks], [start], stop - start)
        positions = paddle.arange(start, stop).unsqueeze(0)
        hidden = decoder.model(embeds, positions, None, rows, length=prompt_length, last_only=True)
        return None if stop < prompt_length else decoder.lm_head(hidden[:, -1]).astype("float32")

    def decode(self, ids: paddle.Tensor, block_tables: list[list[int]], lengths: list[int]) -> paddle.Tensor:
        """Logits of a decode step, float32 [B, V]; see `DecodeRunner`."""
        return self._decode(ids, block_tables, lengths)

    def clear_blocks(self, blocks: list[int]) -> None:
        """Set KV blocks to zero."""
        self.cache.clear(blocks)
