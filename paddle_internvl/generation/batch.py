"""Batch generation of token ids: sampling, beam search and n answers per prompt behind one function.

In: embeddings of prompts and settings. Out: new ids, padded to one length, and their log-probabilities.
"""

from __future__ import annotations

import numpy as np
import paddle

from paddle_internvl.generation.beam import beam_search
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.models.decoder import DecoderForCausalLM


def generate_batch(
    decoder: DecoderForCausalLM,
    embeds: paddle.Tensor,
    attention_mask: paddle.Tensor | None,
    config: GenerationConfig,
    streamer,
    input_ids: paddle.Tensor | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Generate answers to a batch of prompts.

    Args:
        decoder: the language model.
        embeds: [B, L, D], embeddings of the prompts.
        attention_mask: [B, L], padding on the left; None: no padding.
        config: the settings of all prompts.
        streamer: an object with put(ids) and end(), for one prompt; ended on errors too. None: no streaming.
        input_ids: int64 [B, L], the prompts, for the streamer.
    Returns:
        The new ids, int64 [B * n, new tokens], and float32 log-probabilities of the same shape; with beams float64
        [B, 1], one score a row; None if not requested.
    Raises:
        ValueError: a streamer with several answers, a response_format, or a logit_bias of an id that the model does not
            have.
    """
    if config.response_format is not None:
        raise ValueError("response_format needs the tokenizer; use chat, batch_chat, chat_messages or a pipeline")
    if streamer is not None and (config.num_beams > 1 or config.n > 1):
        raise ValueError("a streamer shows one answer while it is generated; use num_beams=1 and n=1")
    config.require_vocabulary(decoder.config.vocab_size)
    pad = decoder.config.pad_token_id or 0
    try:
        if streamer is not None:
            streamer.put(input_ids.numpy())
        if config.num_beams > 1:
            answers = beam_search(decoder, embeds, attention_mask, config)
            length = max(len(ids) for ids, _ in answers)
            ids = np.array([ids + [pad] * (length - len(ids)) for ids, _ in answers], np.int64)
            return ids, np.array([[score] for _, score in answers])
        if config.n > 1:
            rows = paddle.arange(embeds.shape[0]).repeat_interleave(config.n)
            embeds = embeds.index_select(rows, axis=0)
            attention_mask = None if attention_mask is None else attention_mask.index_select(rows, axis=0)
        on_step = (lambda step: streamer.put(step.ids)) if streamer is not None else (lambda step: None)
        return generate_ids(decoder, embeds, attention_mask, config, pad, on_step)
    finally:
        if streamer is not None:
            streamer.end()


def answer_lengths(ids: np.ndarray, config: GenerationConfig) -> np.ndarray:
    """Number of tokens of each row of ids [B, T], the end token included; int64 [B, 1]."""
    ends = np.isin(ids, config.eos_token_id) & (not config.ignore_eos)
    return np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, ids.shape[1])[:, None]
