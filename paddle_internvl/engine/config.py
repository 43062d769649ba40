"""Settings of an engine, with the names of LMDeploy's `TurbomindEngineConfig`."""

from __future__ import annotations

from dataclasses import dataclass

QUANTIZATIONS = {"wint8": "load_in_8bit", "wint4": "load_in_4bit"}  # FastDeploy's names -> argument of from_pretrained
_POSITIVE = ("max_batch_size", "cache_tokens", "prefill_chunk", "vision_max_batch_size")


def quantization_options(settings) -> dict[str, bool]:
    """Arguments of `from_pretrained` and fields of an `EngineConfig`.

    Args:
        settings: an object with `quantization` (a name in QUANTIZATIONS or None), `quantize_head` and
            `int8_activations`.
    """
    options = {} if settings.quantization is None else {QUANTIZATIONS[settings.quantization]: True}
    return options | {name: True for name in ("quantize_head", "int8_activations") if getattr(settings, name)}


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
        quantize_head: as `from_pretrained`.
        int8_activations: as `from_pretrained`.
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
    quantize_head: bool = False
    int8_activations: bool = False
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
        for name in _POSITIVE:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
        if not 0 < self.cache_max_entry_count <= 1:
            raise ValueError(f"cache_max_entry_count={self.cache_max_entry_count} is not in (0, 1]")
