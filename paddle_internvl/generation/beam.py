"""Beam search: the likeliest answers rather than the likeliest next tokens.

In: prompt embeddings, as `generate`. Out: the best answer of each prompt. Knows ids and logits only.
Source: transformers `generation/beam_search.py`, BeamSearchScorer, with its scores and its order of ties.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import Sampler
from paddle_internvl.models.decoder import DecoderForCausalLM, count_positions

_DUPLICATE = -1e9  # score of beams that start as copies of the first


@dataclass
class _Finished:
    """Finished beams of one prompt.

    Attributes:
        capacity: number of best beams that are kept.
        answers: (score, ids), the best first.
        closed: whether no beam is added any more, so that the answer does not depend on other prompts of the batch.
    """

    capacity: int
    answers: list[tuple[float, list[int]]] = field(default_factory=list)
    closed: bool = False

    def add(self, score: float, ids: list[int]) -> None:
        if self.closed:
            return
        self.answers = sorted([*self.answers, (score, ids)], key=lambda answer: -answer[0])[: self.capacity]

    @property
    def full(self) -> bool:
        return len(self.answers) == self.capacity

    def close_if_beaten(self, best_running: float, length: int, config: GenerationConfig) -> None:
        """Close if no running beam is better, judged at the present length."""
        beaten = self.full and self.answers[-1][0] >= best_running / length**config.length_penalty
        self.closed = self.closed or beaten or (self.full and config.early_stopping)


def beam_search(
    decoder: DecoderForCausalLM,
    inputs_embeds: paddle.Tensor,
    attention_mask: paddle.Tensor | None,
    config: GenerationConfig,
) -> list[tuple[list[int], float]]:
    """The best answer of each prompt, its end token included, and its score.

    Args:
        decoder: the language model.
        inputs_embeds: [B, L, D].
        attention_mask: [B, L], padding on the left, or None.
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
    scores = np.full((batch, beams), _DUPLICATE)
    scores[:, 0] = 0.0
    ids: list[list[int]] = [[] for _ in range(batch * beams)]
    finished = [_Finished(beams) for _ in range(batch)]
    for made in range(1, config.max_new_tokens + 1):
        with paddle.no_grad():
            logits = decoder(**inputs, attention_mask=mask, position_ids=positions, cache=cache, last_only=True)[:, 0]
        generated = paddle.to_tensor(ids) if made > 1 else None
        log_probs = sampler.adjust(F.log_softmax(logits, axis=-1), generated).numpy()  # [B * beams, V]
        vocabulary = log_probs.shape[-1]
        total = (log_probs + scores.reshape(-1, 1)).reshape(batch, beams * vocabulary)
        sources, tokens = [], []
        for prompt in range(batch):
            first = prompt * beams
            kept = _extend(total[prompt], vocabulary, first, ids, finished[prompt], config, ends, made)
            scores[prompt] = [score for score, _, _ in kept]
            sources += [row for _, row, _ in kept]
            tokens += [token for _, _, token in kept]
        ids = [[*ids[row], token] for row, token in zip(sources, tokens)]
        for prompt, group in enumerate(finished):
            group.close_if_beaten(scores[prompt].max(), made, config)
        if all(group.closed for group in finished):
            break
        cache.keep_rows(paddle.to_tensor(sources))
        inputs = {"input_ids": paddle.to_tensor(tokens).reshape([-1, 1])}
        positions = positions[:, -1:] + 1
        if mask is not None:
            mask = paddle.concat([mask, paddle.ones([batch * beams, 1], "bool")], axis=1)
    for prompt, group in enumerate(finished):  # beams that run at the limit count as finished
        for row in range(prompt * beams, (prompt + 1) * beams):
            group.add(scores.flat[row] / len(ids[row]) ** config.length_penalty, ids[row])
    return [(ids, score) for score, ids in (group.answers[0] for group in finished)]


def _extend(total, vocabulary: int, first: int, ids, finished: _Finished, config, ends, made: int):
    """The beams of one prompt after one more token: (score, row that is continued, token), likeliest first.

    Candidates with an end token finish, if they are among the first `num_beams`; otherwise they are dropped.
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
