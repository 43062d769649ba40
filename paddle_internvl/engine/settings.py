"""What a user sets of an engine, and the engine for a model by it.

In: an `EngineConfig`, LMDeploy's `TurbomindEngineConfig` in its place. Out: an `Engine`, its KV cache allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle_internvl import runtime
from paddle_internvl.engine.engine import Engine
from paddle_internvl.engine.limits import EngineLimits
from paddle_internvl.engine.paged_cache import BLOCK

# Tiles between two decode steps: what a card does in a moment takes a CPU so long that answers would be seen to halt.
_TILES = {"cpu": 1, "gpu": 16}


@dataclass(frozen=True)
class EngineConfig:
    """How the model is loaded and run.

    Args:
        session_len: the most tokens of prompt and answer; None: the model's. max_batch_size: answers decoded together.
        dtype: 'auto', 'bfloat16', 'float16' or 'float32'. device: 'cpu', 'gpu' or None.
        load_in_8bit, load_in_4bit: as `from_pretrained`. max_num, max_total_tiles: tiles of a picture, and of all.
        vision_max_batch_size: tiles that run through the vision tower between two decode steps; None: by the device.
        cache_max_entry_count: share of the free memory that the KV cache may take; it takes no more than
            max_batch_size answers of session_len need. cache_tokens: its positions; None: by that share.
        prefill_chunk: prompt tokens between two decode steps.
        max_waiting: answers that may wait for room; None: any number. enable_prefix_caching: reuse the KV cache of
            equal beginnings. cuda_graph: capture decode steps as CUDA graphs and play them again; needs a card.
    """

    session_len: int | None = None
    max_batch_size: int = 16
    dtype: str = "auto"
    device: str | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False
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
    """An engine for a loaded model.

    Raises:
        ValueError: a KV cache of less than one block fits; decode steps that can't be captured.
    """
    decoder = model.language_model
    length = decoder.config.context_length if config.session_len is None else config.session_len
    device = "gpu" if decoder.get_input_embeddings().weight.place.is_gpu_place() else "cpu"
    tokens = config.cache_tokens
    if tokens is None:
        fit = int(runtime.free_memory(device) * config.cache_max_entry_count) // bytes_per_token(decoder)
        if fit < BLOCK:
            raise ValueError(f"{config.cache_max_entry_count} of the free memory holds no KV cache; raise the share")
        tokens = min(fit, config.max_batch_size * length)
    limits = EngineLimits(
        max_batch_size=config.max_batch_size,
        session_len=length,
        cache_tokens=tokens,
        prefill_chunk=config.prefill_chunk,
        vision_tiles=config.vision_max_batch_size or _TILES[device],
        max_waiting=config.max_waiting,
        reuse=config.enable_prefix_caching,
        cuda_graph=config.cuda_graph,
    )
    return Engine(model, tokenizer, limits)


def bytes_per_token(decoder) -> int:
    """What one position takes in the KV cache of all layers."""
    c, weight = decoder.config, decoder.model.norm.weight  # of the dtype that is computed in
    return 2 * c.num_hidden_layers * decoder.own_kv_heads * c.head_dim * weight.element_size()
