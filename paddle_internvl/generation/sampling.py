"""From logits to the next token: penalties, filters, choice. Rows are independent of each other.

In: logits [B, V] and what each row has generated. Out: one id per row. Order of the steps as in transformers:
repetition penalty, no-repeat n-gram, minimum length, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_internvl.generation.config import GenerationConfig

_NEVER = float("-inf")


class Sampler:
    """Chooses tokens for `batch` rows by one config; every row draws from a generator of its own.

    Rows with the same seed draw the same numbers, so a row's tokens do not depend on its neighbours.
    """

    def __init__(self, config: GenerationConfig, batch: int):
        self.config = config
        self._draws = [np.random.default_rng(config.seed) for _ in range(batch)]

    def __call__(self, logits: paddle.Tensor, generated: list[list[int]]) -> tuple[np.ndarray, np.ndarray | None]:
        """The next token of each row.

        Args:
            logits: float32 [B, V]. generated: per row, the ids generated so far (the prompt is not among them).
        Returns:
            ids: int64 [B]; log-probabilities under the unchanged logits: float32 [B], or None if not asked for.
        """
        c = self.config
        adjusted = self._adjust(logits, generated)
        if c.samples:
            probabilities = F.softmax(_filter(adjusted / c.temperature, c), axis=-1)
            uniform = np.array([draw.random() for draw in self._draws])
            ids = _draw(probabilities, paddle.to_tensor(uniform, place=logits.place))
        else:
            ids = adjusted.argmax(axis=-1)
        log_probs = None
        if c.log_probs:
            log_probs = F.log_softmax(logits, axis=-1).take_along_axis(ids.unsqueeze(-1), axis=-1).squeeze(-1).numpy()
        return ids.numpy(), log_probs

    def _adjust(self, logits: paddle.Tensor, generated: list[list[int]]) -> paddle.Tensor:
        c = self.config
        forbidden = [_repeats(ids, c.no_repeat_ngram_size) for ids in generated]
        if len(generated[0]) < c.min_new_tokens:
            forbidden = [ids | set(c.eos_token_id) for ids in forbidden]
        if c.repetition_penalty == 1.0 and not any(forbidden):
            return logits
        change = logits.numpy().copy()
        for row, (before, never) in enumerate(zip(generated, forbidden)):
            seen = np.unique(np.array(before, np.int64))
            score = change[row, seen]
            change[row, seen] = np.where(score < 0, score * c.repetition_penalty, score / c.repetition_penalty)
            change[row, sorted(never)] = _NEVER
        return paddle.to_tensor(change, place=logits.place)


def _repeats(ids: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of `size` that `ids` already holds."""
    if size == 0 or len(ids) + 1 < size:
        return set()
    tail = ids[len(ids) - size + 1 :]
    return {ids[i + size - 1] for i in range(len(ids) - size + 1) if ids[i : i + size - 1] == tail}


def _filter(logits: paddle.Tensor, config: GenerationConfig) -> paddle.Tensor:
    """Logits [B, V] with everything outside top-k, then top-p, then min-p at minus infinity."""
    never = paddle.full([], _NEVER, logits.dtype)
    if 0 < config.top_k < logits.shape[-1]:
        least = logits.topk(config.top_k, axis=-1)[0][:, -1:]
        logits = paddle.where(logits < least, never, logits)
    if config.top_p < 1.0:
        order = logits.argsort(axis=-1, descending=True)
        probabilities = F.softmax(logits.take_along_axis(order, axis=-1), axis=-1)
        before = probabilities.cumsum(-1) - probabilities
        drop = before >= config.top_p  # a token goes when those likelier than it are enough
        drop[:, 0] = False  # top_p=0 keeps the likeliest
        drop = drop.astype("int32").take_along_axis(order.argsort(axis=-1), axis=-1)  # back in the vocabulary's order
        logits = paddle.where(drop == 1, never, logits)
    if config.min_p > 0.0:
        probabilities = F.softmax(logits, axis=-1)
        least = config.min_p * probabilities.max(axis=-1, keepdim=True)
        logits = paddle.where(probabilities < least, never, logits)
    return logits


def _draw(probabilities: paddle.Tensor, uniform: paddle.Tensor) -> paddle.Tensor:
    """Ids [B] drawn from probabilities [B, V] by numbers [B] in [0, 1): the inverse of the cumulated distribution.
    In float64, where no number below 1 rounds to 1 and past the last possible token."""
    cumulated = probabilities.astype("float64").cumsum(-1)
    threshold = uniform.unsqueeze(-1) * cumulated[:, -1:]
    return (cumulated <= threshold).astype("int64").sum(-1)
