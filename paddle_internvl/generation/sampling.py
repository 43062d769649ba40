"""Sampling: from logits to the next token, by penalties, filters and a draw. Rows are independent of each other.

In: logits [B, V], step after step. Out: one id per row and its log-probability, on the device for the next decode step,
and copied to the host asynchronously. Order: logit bias, repetition, frequency and presence penalty as in vLLM;
no-repeat n-gram, bad tokens, minimum length, temperature, top-k, top-p, min-p as in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.ops import devices
from paddle_internvl.ops.transfers import HostCopy, upload

_NEVER = float("-inf")
_LOWEST_TEMPERATURE = 1e-30  # below it a float32 quotient overflows; two logits that differ are as far apart here


@dataclass(frozen=True)
class SampledTokens:
    """One step's tokens, on the host.

    Attributes:
        ids: int64 [B].
        log_probs: float32 [B], under the unchanged logits; None if not requested.
        top: {id: log-probability} of the likeliest tokens of each row, likeliest first; None if not requested.
    """

    ids: np.ndarray
    log_probs: np.ndarray | None = None
    top: list[dict[int, float]] | None = None


class PendingSample:
    """One step's tokens on the device, while they are copied to the host.

    Args:
        ids: int64 [B], input of the next step.
        log_probs: float32 [B] or None.
        top: values and ids of the likeliest tokens, [B, k] each, or ().
    """

    def __init__(self, ids: paddle.Tensor, log_probs: paddle.Tensor | None = None, top: tuple = ()):
        self.ids = ids
        self._copy = HostCopy(ids, *(() if log_probs is None else (log_probs,)), *top)

    def wait(self) -> SampledTokens:
        """Wait for the copy to the host, which is asynchronous; it must be called once."""
        ids, *log_probs = self._copy.wait()
        top = None
        if log_probs[1:]:
            values, tokens = (part.tolist() for part in log_probs[1:])
            top = [dict(zip(*row)) for row in zip(tokens, values)]
        return SampledTokens(ids, log_probs[0] if log_probs else None, top)


class Sampler:
    """Samples tokens for `batch` rows by one config; every row has its own random generator.

    Rows with the same seed draw the same numbers, so a row's tokens do not depend on the batch; the `config.n`
    consecutive rows of one prompt draw different ones.

    Args:
        config: the settings.
        batch: number of rows.
        first: number of the first row, where a prompt's rows are sampled one by one.
    """

    def __init__(self, config: GenerationConfig, batch: int, first: int = 0):
        self.config = config
        seed = np.random.SeedSequence().entropy if config.seed is None else config.seed
        # Without a seed every row differs; with one, row k of each prompt draws as the k-th answer.
        rows = range(first, first + batch)
        keys = rows if config.seed is None else (row % config.n for row in rows)
        self._draws = [np.random.default_rng([seed, key] if key else seed) for key in keys]
        self._needs_history = config.penalises or config.no_repeat_ngram_size or config.min_new_tokens
        self._generated: paddle.Tensor | None = None  # [B, T], if the config needs it
        self._bias: tuple[paddle.Tensor, paddle.Tensor] | None = None  # ids and biases [B, k], uploaded once

    def __call__(self, logits: paddle.Tensor, unmasked: paddle.Tensor | None = None) -> PendingSample:
        """The next token of each row.

        Args:
            logits: float32 [B, V] after the tokens sampled before.
            unmasked: float32 [B, V], logits of the log-probabilities; None: `logits`.
        """
        c = self.config
        adjusted = self.adjust(logits, self._generated)
        if c.samples:
            below_max = adjusted - adjusted.max(axis=-1, keepdim=True)  # at most 0: dividing can't overflow to inf
            scaled = below_max / max(c.temperature, _LOWEST_TEMPERATURE)
            probabilities = F.softmax(_filter(scaled, c), axis=-1)
            uniform = np.array([draw.random() for draw in self._draws])
            ids = _draw(probabilities, upload(uniform, devices.device_of(logits)))
        else:
            ids = adjusted.argmax(axis=-1)
        if self._needs_history:
            new = ids.unsqueeze(-1)
            self._generated = new if self._generated is None else paddle.concat([self._generated, new], axis=1)
        if not c.log_probs:
            return PendingSample(ids)
        scores = F.log_softmax(logits if unmasked is None else unmasked, axis=-1)
        log_probs = scores.take_along_axis(ids.unsqueeze(-1), axis=-1).squeeze(-1)
        count = min(c.top_logprobs, logits.shape[-1])
        return PendingSample(ids, log_probs, scores.topk(count, axis=-1) if count else ())

    def adjust(self, logits: paddle.Tensor, generated: paddle.Tensor | None) -> paddle.Tensor:
        """Logits [B, V] after penalties, with forbidden tokens at minus infinity.

        Args:
            logits: float32 [B, V].
            generated: int64 [B, T], ids generated so far, without the prompt; None: none yet.
        """
        c = self.config
        made = 0 if generated is None else generated.shape[1]
        if c.logit_bias:
            if self._bias is None:
                rows, device = np.array([c.logit_bias] * logits.shape[0]), devices.device_of(logits)  # [B, k, 2]
                parts = rows[..., 0].astype(np.int64), rows[..., 1].astype(np.float32)
                self._bias = tuple(upload(np.ascontiguousarray(part), device) for part in parts)
            logits = logits.put_along_axis(*self._bias, axis=1, reduce="add")
        if made and c.penalises:
            logits = _penalised(logits, generated, c)
        if c.no_repeat_ngram_size and made >= c.no_repeat_ngram_size:
            logits = _without_repeats(logits, generated, c.no_repeat_ngram_size)
        never = {*c.bad_token_ids, *(c.eos_token_id if made < c.min_new_tokens else ())}
        never = sorted(token for token in never if token < logits.shape[-1])  # the tokenizer may have more
        if never:
            columns = upload(np.array([never] * logits.shape[0]), devices.device_of(logits))
            logits = logits.put_along_axis(columns, paddle.full(columns.shape, _NEVER, logits.dtype), axis=1)
        return logits


def _penalised(logits: paddle.Tensor, generated: paddle.Tensor, config: GenerationConfig) -> paddle.Tensor:
    """Logits after the repetition, frequency and presence penalties of the ids generated.

    Source: vLLM `model_executor/layers/utils.py`, `apply_penalties`.
    """
    score = logits.take_along_axis(generated, axis=1)  # [B, T]; a repeated id gets the same score at every place
    if config.repetition_penalty != 1.0:
        penalty = paddle.full([], config.repetition_penalty, logits.dtype)
        score = paddle.where(score < 0, score * penalty, score / penalty)
    if config.frequency_penalty:
        ones = paddle.ones(generated.shape, logits.dtype)
        counts = paddle.zeros_like(logits).put_along_axis(generated, ones, axis=1, reduce="add")
        score = score - counts.take_along_axis(generated, axis=1) * config.frequency_penalty
    if config.presence_penalty:
        score = score - config.presence_penalty
    return logits.put_along_axis(generated, score, axis=1)


def _without_repeats(logits: paddle.Tensor, generated: paddle.Tensor, size: int) -> paddle.Tensor:
    """Logits with tokens at minus infinity that would repeat an n-gram of `size`."""
    count = generated.shape[1] - size + 1  # n-grams
    same = paddle.ones([generated.shape[0], count], "bool")
    for i in range(size - 1):  # each n-gram's first tokens against the last tokens generated
        same = paddle.logical_and(same, generated[:, i : i + count] == generated[:, count + i : count + i + 1])
    change = paddle.where(same, paddle.full([], _NEVER, logits.dtype), paddle.zeros([], logits.dtype))
    return logits.put_along_axis(
        generated[:, size - 1 :], change, axis=1, reduce="add"
    )  # a token may end several n-grams


def _filter(logits: paddle.Tensor, config: GenerationConfig) -> paddle.Tensor:
    """Logits [B, V] with tokens outside top-k, then top-p, then min-p at minus infinity."""
    never = paddle.full([], _NEVER, logits.dtype)
    if 0 < config.top_k < logits.shape[-1]:
        least = logits.topk(config.top_k, axis=-1)[0][:, -1:]
        logits = paddle.where(logits < least, never, logits)
    if config.top_p < 1.0:
        order = logits.argsort(axis=-1, descending=True)
        probabilities = F.softmax(logits.take_along_axis(order, axis=-1), axis=-1)
        before = probabilities.cumsum(-1) - probabilities
        drop = before >= config.top_p  # dropped when likelier tokens reach top_p
        drop[:, 0] = False  # top_p=0 keeps the likeliest
        drop = drop.astype("int32").take_along_axis(order.argsort(axis=-1), axis=-1)  # back in the vocabulary's order
        logits = paddle.where(drop == 1, never, logits)
    if config.min_p > 0.0:
        probabilities = F.softmax(logits, axis=-1)
        least = config.min_p * probabilities.max(axis=-1, keepdim=True)
        logits = paddle.where(probabilities < least, never, logits)
    return logits


def _draw(probabilities: paddle.Tensor, uniform: paddle.Tensor) -> paddle.Tensor:
    """Ids [B] drawn from probabilities [B, V] by uniform numbers [B] in [0, 1): inverse transform sampling.

    In float64: in float32 a number below 1 may round to 1, past the last possible token.
    """
    cumulated = probabilities.astype("float64").cumsum(-1)
    threshold = uniform.unsqueeze(-1) * cumulated[:, -1:]
    return (cumulated <= threshold).astype("int64").sum(-1)
