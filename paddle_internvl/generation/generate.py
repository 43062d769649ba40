"""The decoding loop of a batch: prompt embeddings in, token ids out, step by step.

Knows ids and logits only. A caller that stops iterating stops the generation. On a card a step's tokens are read while
the next step runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import paddle

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import PendingSample, SampledTokens, Sampler
from paddle_internvl.models.decoder import DecoderForCausalLM, count_positions
from paddle_internvl.ops import transfers

FINISHED = -1  # in place of a token id, in rows that ended before


def generate_steps(
    decoder: DecoderForCausalLM,
    inputs_embeds: paddle.Tensor,
    attention_mask: paddle.Tensor | None,
    config: GenerationConfig,
    stop: Callable[[int, list[int]], bool] = lambda row, ids: False,
) -> Iterator[SampledTokens]:
    """Decode until every row has ended or has `config.max_new_tokens`; ids are `FINISHED` in rows that ended before.

    Args:
        decoder: the language model.
        inputs_embeds: [B, L, D].
        attention_mask: [B, L], padding on the left, or None.
        config: the settings; the `n` rows of one prompt are consecutive.
        stop: called after every token with a row and its ids so far; True ends the row.
    Raises:
        ValueError: padding on the right.
    """
    batch = inputs_embeds.shape[0]
    generated: list[list[int]] = [[] for _ in range(batch)]
    alive = np.ones(batch, bool)
    ends = () if config.ignore_eos else config.eos_token_id
    launches = _launches(decoder, inputs_embeds, attention_mask, config)
    in_flight = deque([next(launches)])
    try:
        while in_flight:
            if transfers.overlaps():  # where all rows end with this step, the next one's result is dropped
                in_flight.extend(islice(launches, 1))
            tokens = in_flight.popleft().wait()
            for row in np.flatnonzero(alive):
                generated[row].append(int(tokens.ids[row]))
            yield replace(tokens, ids=np.where(alive, tokens.ids, FINISHED))
            for row in np.flatnonzero(alive):
                alive[row] = not (tokens.ids[row] in ends or stop(row, generated[row]))
            if not alive.any():
                return
            if not in_flight:
                in_flight.extend(islice(launches, 1))
    finally:
        for sample in in_flight:
            sample.wait()


def _launches(decoder, inputs_embeds, attention_mask, config: GenerationConfig) -> Iterator[PendingSample]:
    """Up to `config.max_new_tokens` steps; each is launched when it is requested, without reading a token."""
    batch, length, _ = inputs_embeds.shape
    mask = None if attention_mask is None else attention_mask.astype("bool")
    if mask is not None:
        if not bool(mask[:, -1].all()):
            raise ValueError("attention_mask ends with padding; pad on the left (tokenizer.padding_side = 'left')")
        mask = None if bool(mask.all()) else mask
    cache = decoder.new_cache(batch, length + config.max_new_tokens)
    positions = count_positions(mask, batch, length)  # [B, L]
    sampler = Sampler(config, batch)
    inputs = {"inputs_embeds": inputs_embeds}
    for _ in range(config.max_new_tokens):
        with paddle.no_grad():
            logits = decoder(**inputs, attention_mask=mask, position_ids=positions, cache=cache, last_only=True)
            sample = sampler(logits[:, 0])
        yield sample
        inputs = {"input_ids": sample.ids.unsqueeze(-1)}
        positions = positions[:, -1:] + 1
        if mask is not None:
            mask = paddle.concat([mask, paddle.ones([batch, 1], "bool")], axis=1)


def generate_ids(
    decoder: DecoderForCausalLM,
    inputs_embeds: paddle.Tensor,
    attention_mask: paddle.Tensor | None,
    config: GenerationConfig,
    pad_token_id: int,
    on_step: Callable[[SampledTokens], None] = lambda step: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """All new ids at once.

    Args:
        decoder: see `generate_steps`.
        inputs_embeds: see `generate_steps`.
        attention_mask: see `generate_steps`.
        config: see `generate_steps`.
        pad_token_id: fills rows that ended early.
        on_step: called with every step.
    Returns:
        ids, int64 [B, T]; log-probabilities, float32 [B, T], 0 behind a row's end, or None if not requested.
    """
    steps = []
    for step in generate_steps(decoder, inputs_embeds, attention_mask, config):
        on_step(step)
        steps.append(step)
    ids = np.stack([step.ids for step in steps], axis=1)
    log_probs = None
    if config.log_probs:
        log_probs = np.stack([step.log_probs for step in steps], axis=1)
        log_probs[ids == FINISHED] = 0.0
    return np.where(ids == FINISHED, pad_token_id, ids), log_probs
