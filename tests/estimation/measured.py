"""Measured memory of a model on a CPU: bytes of its parameters, and the peak of the tensors that an answer takes."""

from __future__ import annotations

import numpy as np
from paddle.base import core

from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.engine.request import Prompt
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.models.feature_cache import FeatureCache

_NEW_TOKENS = 4


class NoText:
    """A tokenizer whose answers are empty: a random vocabulary has ids that the tests' tokenizer lacks."""

    def __init__(self, image_id: int):
        self.image_id = image_id

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.image_id

    def decode(self, ids, **options) -> str:
        return ""


def answer(model, tiles: int, context: int, batch: int) -> None:
    """Generate `batch` answers to prompts of `tiles` tiles that fill the context, as `batch_chat` does."""
    side, image_id = model.config.tile_side, model.img_context_token_id
    visual = [image_id] * (tiles * model.num_image_token)
    ids = visual + [7] * (context - _NEW_TOKENS - len(visual))
    prompts = []
    for k in range(batch):
        pixels = [np.full((tiles, 3, side, side), k, np.float32)] if tiles else []
        prompts.append(Prompt(ids, pixels, None))
    config = GenerationConfig(max_new_tokens=_NEW_TOKENS, ignore_eos=True)
    for _ in BatchGeneration(model, NoText(image_id), prompts, config):
        pass


def parameter_bytes(model) -> int:
    """Bytes of the parameters and buffers."""
    stored = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer is not None)]
    return sum(tensor.size * tensor.element_size() for tensor in stored)


def allocator_peak(model, tiles: int, context: int, batch: int) -> int:
    """Bytes of the parameters, of the pixels, and of the most tensors at once that `answer` allocates."""
    model.feature_cache = FeatureCache(0)
    before = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    answer(model, tiles, context, batch)
    allocated = core.host_memory_stat_peak_value("Allocated", 0) - before
    return parameter_bytes(model) + batch * tiles * 3 * model.config.tile_side**2 * 4 + allocated
