"""Roofline of the vision tower, prefill and decode: FLOP/s and bytes/s beside the device's measured peaks.

In: a config; the current device. Out: rows of seconds, FLOP/s and bytes/s. The model's weights are random: time does
not depend on their values.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import paddle

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.internvl import InternVLNetwork

_REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: is measured.
        seconds: the median.
        flops: floating point operations of matrix products, a second.
        bytes: of weights and KV cache that are read, a second.
    """

    what: str
    seconds: float
    flops: float
    bytes: float


def _seconds(run: Callable[[], object]) -> float:
    """Median seconds of a call, after two warm-up calls."""
    times = []
    for _ in range(2 + _REPEATS):
        _wait()
        start = time.perf_counter()
        run()
        _wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _wait() -> None:
    if paddle.get_device().startswith("gpu"):
        paddle.device.synchronize()


def _bytes(tensor: paddle.Tensor) -> int:
    return int(tensor.size) * tensor.element_size()


def _row(name: str, run: Callable, flops: float, read: float) -> Row:
    seconds = _seconds(run)
    return Row(name, seconds, flops / seconds, read / seconds)


def peaks(dtype: str, side: int = 8192, megabytes: int = 512) -> list[Row]:
    """Peaks of the device: FLOP/s of a square matrix product, bytes/s of a copy (read and written)."""
    a, b = (paddle.ones([side, side], dtype) for _ in range(2))
    memory = paddle.ones([megabytes << 18], "float32")
    return [
        _row(f"product {side} x {side} x {side}", lambda: paddle.matmul(a, b), 2.0 * side**3, 3 * _bytes(a)),
        _row(f"copy of {megabytes} MiB", lambda: memory.clone(), 0.0, 2 * _bytes(memory)),
    ]


def _weights(layer) -> tuple[int, int]:
    """Elements and bytes of a layer's matrices."""
    matrices = [parameter for parameter in layer.parameters() if parameter.ndim > 1]
    return sum(int(m.size) for m in matrices), sum(map(_bytes, matrices))


def model_rows(config: InternVLChatConfig, dtype: str, tiles: int = 4, prompt: int = 2048, batch: int = 1) -> list[Row]:
    """Rows of the vision tower on `tiles` tiles, prefill of `prompt` tokens, and one decode step of `batch` rows."""
    model = InternVLNetwork(config)
    model.to(dtype=dtype)
    model.eval()
    vision, decoder = config.vision_config, model.language_model
    llm, tile = config.llm_config.sizes, config.tile_sizes
    pixels = paddle.zeros([tiles, 3, tile.side, tile.side], dtype)
    patches = 1 + tile.patches
    elements, size = _weights(model.vision_model.encoder)
    square = 4.0 * vision.num_hidden_layers * vision.hidden_size
    with paddle.no_grad():
        vision_row = _row(
            f"vision, {tiles} tiles",
            lambda: model.extract_feature(pixels),
            tiles * patches * (2.0 * elements + square * patches),
            size,
        )
        elements, size = _weights(decoder.model.layers)
        across = llm.layers * llm.query_width
        cached_bytes = llm.cached_per_token * pixels.element_size()
        head = decoder.lm_head.weight
        embeds = paddle.zeros([batch, prompt, llm.width], dtype)

        def run_prefill():
            cache = decoder.new_cache(batch, prompt + 2 + _REPEATS)
            decoder(inputs_embeds=embeds, cache=cache, last_only=True)
            return cache

        flops = 2.0 * elements * prompt + 2.0 * across * prompt**2 + 2.0 * int(head.size)
        prefill = _row(f"prefill, {batch} x {prompt} tokens", run_prefill, batch * flops, size + _bytes(head))
        cache, token = run_prefill(), paddle.zeros([batch, 1], "int64")
        flops = batch * (2.0 * (elements + int(head.size)) + 4.0 * across * prompt)
        step = _row(
            f"decode, {batch} after {prompt}",
            lambda: decoder(input_ids=token, cache=cache),
            flops,
            size + _bytes(head) + batch * prompt * cached_bytes,
        )
    return [vision_row, prefill, step]
