"""From logits to the next token: penalties, filters, choice. Rows are independent of each other.

In: logits [B, V] and what each row has generated. Out: one id per row, and its log-probability. Order of the steps as
in transformers: repetition penalty, no-repeat n-gram and bad tokens, minimum length, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_internvl.generation.config import GenerationConfig

_NEVER = float("-inf")


@dataclass(frozen=True)
class Chosen:
    """One step's tokens: ids int64 [B]; if asked for, their log-probabilities under the unchanged logits, float32 [B],
    and per row those of the likeliest tokens, likeliest first."""

    ids: np.ndarray
    log_probs: np.ndarray | None = None
    top: list[dict[int, float]] | None = None


class Sampler:
    """Chooses tokens for `batch` rows by one config; every row draws from a generator of its own. `first`: number of
    the first row, where not all rows are here.

    Rows with the same seed draw the same numbers, so a row's tokens do not depend on its neighbours; the `config.n`
    rows of one prompt, which stand together, draw different ones.
    """

    def __init__(self, config: GenerationConfig, batch: int, first: int = 0):
        self.config = config
        seed = np.random.SeedSequence().entropy if config.seed is None else config.seed
        # Without a seed every row is on its own; with one, row k of each prompt draws as the k-th answer does.
        rows = range(first, first + batch)
        keys = rows if config.seed is None else (row % config.n for row in rows)
        self._draws = [np.random.default_rng([seed, key] if key else seed) for key in keys]

    def __call__(self, logits: paddle.Tensor, generated: list[list[int]]) -> Chosen:
        """The next token of each row.

        Args:
            logits: float32 [B, V]. generated: per row, the ids generated so far (the prompt is not among them).
        """
        c = self.config
        adjusted = self.adjust(logits, generated)
        if c.samples:
            probabilities = F.softmax(_filter(adjusted / c.temperature, c), axis=-1)
            uniform = np.array([draw.random() for draw in self._draws])
            ids = _draw(probabilities, paddle.to_tensor(uniform, place=logits.place))
        else:
            ids = adjusted.argmax(axis=-1)
        if not c.log_probs:
            return Chosen(ids.numpy())
        scores = F.log_softmax(logits, axis=-1)
        chosen = Chosen(ids.numpy(), scores.take_along_axis(ids.unsqueeze(-1), axis=-1).squeeze(-1).numpy())
        if c.top_logprobs:
            values, tokens = (part.numpy().tolist() for part in scores.topk(c.top_logprobs, axis=-1))
            chosen = replace(chosen, top=[dict(zip(*row)) for row in zip(tokens, values)])
        return chosen

    def adjust(self, logits: paddle.Tensor, generated: list[list[int]]) -> paddle.Tensor:
        """Logits [B, V] after penalties, and with what must not be chosen at minus infinity."""
        c = self.config
        forbidden = [_repeats(ids, c.no_repeat_ngram_size) | set(c.bad_token_ids) for ids in generated]
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
