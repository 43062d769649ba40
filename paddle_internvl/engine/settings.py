"""Settings of an engine, as users give them, and the engine of a model.

In: an `EngineConfig`, with the names of LMDeploy's `TurbomindEngineConfig`. Out: an `Engine`, its KV cache allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from paddle_internvl import runtime
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.paged_kv_cache import BLOCK_SIZE

# Tiles between two decode steps. A CPU takes so long for a batch of tiles that running answers would seem to halt.
_VISION_TILES = {"cpu": 1, "gpu": 16}


@dataclass(frozen=True)
class EngineConfig:
    """How a model is loaded and run.

    Args:
        session_len: limit of prompt and answer together; None: the model's context length.
        max_batch_size: answers decoded together.
        dtype: 'auto', 'bfloat16', 'float16' or 'float32'.
        device: 'cpu', 'gpu' or None.
        load_in_8bit: as `from_pretrained`.
        load_in_4bit: as `from_pretrained`.
        adapter: as `from_pretrained`.
        max_num: limit of tiles of a picture; None: the model's.
        max_total_tiles: limit of tiles of all pictures of a prompt; None: no limit.
        vision_max_batch_size: tiles that run through the vision tower together; None: by the device.
        cache_max_entry_count: share of the free memory for the KV cache, which takes no more than max_batch_size
            answers of session_len need.
        cache_tokens: positions of the KV cache, which also limit prompt and answer together; None: by
            cache_max_entry_count.
        prefill_chunk: prompt tokens prefilled between two decode steps.
        max_waiting: answers that may wait for admission; None: no limit.
        enable_prefix_caching: reuse the KV blocks of a shared prefix.
        cuda_graph: capture decode steps as CUDA graphs; needs a card.
    """

    session_len: int | None = None
    max_batch_size: int = 16
    dtype: str = "auto"
    device: str | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    adapter: str | None = None
    max_num: int | None = None
    max_total_tiles: int | None = None
    vision_max_batch_size: int | None = None
    cache_max_entry_count: float = 0.25
    cache_tokens: int | None = None
    prefill_chunk: int = 256
    max_waiting: int | None = None
    enable_prefix_caching: bool = True
    cuda_graph: bool = False

    def __post_init__(self):
        if not 0 < self.cache_max_entry_count <= 1:
            raise ValueError(f"cache_max_entry_count={self.cache_max_entry_count} is not in (0, 1]")


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
    limits = EngineLimits(
        max_batch_size=config.max_batch_size,
        session_len=session_len,
        cache_tokens=cache_tokens,
        prefill_chunk=config.prefill_chunk,
        vision_tiles=config.vision_max_batch_size or _VISION_TILES[device],
        max_waiting=config.max_waiting,
        reuse=config.enable_prefix_caching,
        cuda_graph=config.cuda_graph,
    )
    return Engine(model, tokenizer, limits)


def bytes_per_token(decoder) -> int:
    """Bytes of one position in the KV cache of all layers."""
    config, weight = decoder.config, decoder.model.norm.weight  # a norm has the dtype that is computed in
    return 2 * config.num_hidden_layers * decoder.local_kv_heads * config.head_dim * weight.element_size()
