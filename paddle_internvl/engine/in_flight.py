"""Tokens in flight: sampled on the device, not read by the host yet.

A decode step can be launched with such tokens, since each sequence's `last_token` is a tensor on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle

from paddle_internvl.engine.sequence import Sequence
from paddle_internvl.generation.sampling import PendingSample, SampledTokens
from paddle_internvl.ops import devices
from paddle_internvl.ops.transfers import HostCopy, upload


@dataclass(frozen=True)
class Token:
    """A sampled token.

    Attributes:
        id: the token's id.
        log_probs: {id: log-probability}, the token first; None if not requested.
    """

    id: int
    log_probs: dict[int, float] | None = None


class InFlightTokens:
    """The next token of each sequence of a batch; sets `last_token` of each at once.

    Args:
        sequences: the batch.
        logits: float32 [B, V] of the batch.
    Attributes:
        failed: sequences whose sampling failed, with the exception of each.
    """

    def __init__(self, sequences: list[Sequence], logits: paddle.Tensor):
        self._sequences = sequences
        self.failed: list[tuple[Sequence, Exception]] = []
        masked = self._masked(logits)
        greedy = masked.argmax(axis=-1)  # [B]; one operation for the whole batch, most of which is greedy
        self._copy = HostCopy(greedy, paddle.isfinite(logits.sum(axis=-1)))
        self._samples: dict[int, PendingSample] = {}
        for i, sequence in enumerate(sequences):
            try:
                if sequence.request.config.is_greedy:
                    sequence.last_token = greedy[i : i + 1]
                else:
                    self._samples[i] = sequence.sampler(masked[i : i + 1], logits[i : i + 1])
                    sequence.last_token = self._samples[i].ids
            except Exception as error:
                self.failed.append((sequence, error))

    def _masked(self, logits: paddle.Tensor) -> paddle.Tensor:
        """Logits with tokens at minus infinity that do not match the response format of their sequence."""
        rows, masks = [], []
        for i, sequence in enumerate(self._sequences):
            try:
                if sequence.request.masks is not None:
                    masks.append(sequence.request.masks.mask())
                    rows.append(i)
            except Exception as error:
                self.failed.append((sequence, error))
        if not rows:
            return logits
        device = devices.device_of(logits)
        return paddle.index_add(logits, upload(np.array(rows), device), 0, upload(np.stack(masks), device))

    def wait(self) -> list[tuple[Sequence, Token | Exception]]:
        """Wait for the copies to the host; returns each sequence with its token, or with the error it met."""
        greedy, finite = self._copy.wait()
        samples = {i: sample.wait() for i, sample in self._samples.items()}
        outcomes: list[tuple[Sequence, Token | Exception]] = []
        for i, sequence in enumerate(self._sequences):
            if not finite[i]:
                outcome = FloatingPointError("logits are not finite")
            elif i in samples:
                outcome = _token(samples[i])
            else:
                outcome = Token(int(greedy[i]))
            outcomes.append((sequence, outcome))
        return outcomes


def _token(sampled: SampledTokens) -> Token:
    """The token of a batch of one."""
    token = int(sampled.ids[0])
    if sampled.log_probs is None:
        return Token(token)
    return Token(token, {token: float(sampled.log_probs[0]), **(sampled.top[0] if sampled.top else {})})
