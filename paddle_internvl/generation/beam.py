"""Beam search: the likeliest whole answers rather than the likeliest next tokens.

In: prompt embeddings, as `generate`. Out: the best answer of each prompt. Knows ids and logits only.
Source: transformers `generation/beam_search.py`, BeamSearchScorer; the scores and the order of ties are its.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import Sampler
from paddle_internvl.models.decoder import DecoderForCausalLM, count_positions

_NEVER = -1e9  # score of beams that start as copies of the first


@dataclass
class _Finished:
    """Ended answers of one prompt, the best `room` of them. Once `closed` no other is let in, so that a prompt's answer
    does not depend on how long its neighbours in the batch go on."""

    room: int
    answers: list[tuple[float, list[int]]] = field(default_factory=list)
    closed: bool = False

    def add(self, score: float, ids: list[int]) -> None:
        if self.closed:
            return
        self.answers = sorted([*self.answers, (score, ids)], key=lambda answer: -answer[0])[: self.room]

    @property
    def full(self) -> bool:
        return len(self.answers) == self.room

    def close(self, best_running: float, made: int, config: GenerationConfig) -> None:
        """Close if no running beam can get in any more, judged by the length that is reached."""
        beaten = self.full and self.answers[-1][0] >= best_running / made**config.length_penalty
        self.closed = self.closed or beaten or (self.full and config.early_stopping)


def beam_search(
    decoder: DecoderForCausalLM,
    inputs_embeds: paddle.Tensor,
    attention_mask: paddle.Tensor | None,
    config: GenerationConfig,
) -> list[tuple[list[int], float]]:
    """The best answer of each prompt, its end token included, and its score.

    Args:
        decoder: the language model. inputs_embeds: [B, L, D]. attention_mask: [B, L], padding on the left, or None.
        config: num_beams, length_penalty, early_stopping, limits, penalties and ends.
    """
    batch, length, _ = inputs_embeds.shape
    beams, ends = config.num_beams, () if config.ignore_eos else config.eos_token_id
    rows = paddle.arange(batch).repeat_interleave(beams)
    mask = None if attention_mask is None else attention_mask.astype("bool").index_select(rows, axis=0)
    cache = decoder.new_cache(batch * beams, length + config.max_new_tokens)
    positions = count_positions(mask, batch * beams, length)  # [B * beams, L]
    sampler = Sampler(config, batch * beams)
    inputs = {"inputs_embeds": inputs_embeds.index_select(rows, axis=0)}
    scores = np.full((batch, beams), _NEVER)
    scores[:, 0] = 0.0
    ids: list[list[int]] = [[] for _ in range(batch * beams)]
    finished = [_Finished(beams) for _ in range(batch)]
    for made in range(1, config.max_new_tokens + 1):
        with paddle.no_grad():
            logits = decoder(**inputs, attention_mask=mask, position_ids=positions, cache=cache, last_only=True)[:, 0]
        generated = paddle.to_tensor(ids) if made > 1 else None
        chances = sampler.adjust(F.log_softmax(logits, axis=-1), generated).numpy()  # [B * beams, V]
        vocabulary = chances.shape[-1]
        total = (chances + scores.reshape(-1, 1)).reshape(batch, beams * vocabulary)
        sources, tokens = [], []
        for prompt in range(batch):
            first = prompt * beams
            kept = _extend(total[prompt], vocabulary, first, ids, finished[prompt], config, ends, made)
            scores[prompt] = [score for score, _, _ in kept]
            sources += [row for _, row, _ in kept]
            tokens += [token for _, _, token in kept]
        ids = [[*ids[row], token] for row, token in zip(sources, tokens)]
        for prompt, group in enumerate(finished):
            group.close(scores[prompt].max(), made, config)
        if all(group.closed for group in finished):
            break
        cache.keep_rows(paddle.to_tensor(sources))
        inputs = {"input_ids": paddle.to_tensor(tokens).reshape([-1, 1])}
        positions = positions[:, -1:] + 1
        if mask is not None:
            mask = paddle.concat([mask, paddle.ones([batch * beams, 1], "bool")], axis=1)
    for prompt, group in enumerate(finished):  # at the limit what runs is as good as ended
        for row in range(prompt * beams, (prompt + 1) * beams):
            group.add(scores.flat[row] / len(ids[row]) ** config.length_penalty, ids[row])
    return [(ids, score) for score, ids in (group.answers[0] for group in finished)]


def _extend(total, vocabulary: int, first: int, ids, finished: _Finished, config, ends, made: int):
    """The beams of one prompt after one more token: (score, row it continues, token), likeliest first.

    Candidates that end an answer leave the search, if they are among the first `num_beams`.
    """
    count = config.num_beams * max(2, 1 + len(ends))
    candidates = np.argsort(-total, kind="stable")[:count]
    kept = []
    for rank, candidate in enumerate(candidates):
        row, token = first + int(candidate) // vocabulary, int(candidate) % vocabulary
        if token in ends:
            if rank < config.num_beams:
                finished.add(total[candidate] / made**config.length_penalty, [*ids[row], token])
        else:
            kept.append((total[candidate], row, token))
        if len(kept) == config.num_beams:
            return kept
    raise ValueError(f"fewer than {config.num_beams} tokens are left to choose from")
