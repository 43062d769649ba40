"""The engine of a loaded model: what an `EngineConfig` leaves open is set by the model and the free memory."""

from __future__ import annotations

from dataclasses import replace

import paddle

from paddle_internvl import runtime
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE

# Tiles between two decode steps. A CPU takes so long for a batch of tiles that running answers would seem to halt.
_VISION_TILES = {"cpu": 1, "gpu": 16}


def engine_of(model, tokenizer, config: EngineConfig) -> Engine:
    """The engine of a loaded model.

    Raises:
        ValueError: less than one KV block fits into memory, or decode steps that can't be captured.
    """
    paddle.ones([2, 2]).matmul(paddle.ones([2, 2])).exp()  # loads MKL now: it can't be loaded when memory is short
    decoder = model.language_model
    session_len = decoder.config.context_length if config.session_len is None else config.session_len
    device = "gpu" if decoder.get_input_embeddings().weight.place.is_gpu_place() else "cpu"
    cache_tokens = config.cache_tokens
    if cache_tokens is None:
        fitting = int(runtime.free_memory(device) * config.cache_max_entry_count) // bytes_per_token(decoder)
        if fitting < BLOCK_SIZE:
            raise ValueError(f"{config.cache_max_entry_count} of the free memory holds no KV cache; raise the share")
        cache_tokens = min(fitting, config.max_batch_size * session_len)
    tiles = config.vision_max_batch_size or _VISION_TILES[device]
    resolved = replace(config, session_len=session_len, cache_tokens=cache_tokens, vision_max_batch_size=tiles)
    return Engine(model, tokenizer, resolved)


def bytes_per_token(decoder) -> int:
    """Bytes of one position in the KV cache of all layers."""
    config, weight = decoder.config, decoder.model.norm.weight  # a norm has the dtype that is computed in
    return 2 * config.num_hidden_layers * decoder.local_kv_heads * config.head_dim * weight.element_size()
