"""The next token of each of some sequences, between its launch on the device and the moment the host reads it.

In: logits. Out: what each sequence is fed next, at once, on the device; its token and log-probabilities, or the error
that it met, when they are asked for. It delivers nothing and ends nobody.
"""

from __future__ import annotations

from collections.abc import Callable

import paddle

from paddle_internvl.engine.sequence import Sequence
from paddle_internvl.generation.sampling import PendingSample
from paddle_internvl.ops.transfers import HostCopy

Token = tuple[int, dict[int, float] | None]  # an id; if asked for, {id: log-probability}, its own first


class Launched:
    """See the module.

    Args:
        rows: the sequences; each one's `last` becomes its next token. logits: float32 [B, V] of them.
        choose: the next token of a sequence by its logits [1, V]; None: simply the likeliest.
    Attributes:
        failed: sequences whose choice went wrong, with the error of each.
    """

    def __init__(
        self,
        rows: list[Sequence],
        logits: paddle.Tensor,
        choose: Callable[[Sequence, paddle.Tensor], PendingSample | None],
    ):
        self._rows = rows
        likeliest = logits.argmax(axis=-1)  # [B]; of all rows at once, most of which want no more
        self._reading = HostCopy(likeliest, paddle.isfinite(logits.sum(axis=-1)))
        self._chosen: dict[int, PendingSample] = {}
        self.failed: list[tuple[Sequence, Exception]] = []
        for i, sequence in enumerate(rows):
            try:
                chosen = choose(sequence, logits[i : i + 1])
                sequence.last = likeliest[i : i + 1] if chosen is None else chosen.ids
            except Exception as error:
                self.failed.append((sequence, error))
                continue
            if chosen is not None:
                self._chosen[i] = chosen

    def read(self) -> list[tuple[Sequence, Token | Exception]]:
        """What has become of each sequence, once it is there. It must be asked for: see `HostCopy`."""
        likeliest, sound = self._reading.wait()
        chosen = {i: chosen.read() for i, chosen in self._chosen.items()}
        read: list[tuple[Sequence, Token | Exception]] = []
        for i, sequence in enumerate(self._rows):
            tokens = chosen.get(i)
            if not sound[i]:
                outcome = FloatingPointError("logits are not finite")
            elif tokens is None:
                outcome = int(likeliest[i]), None
            else:
                token, log_probs = int(tokens.ids[0]), None
                if tokens.log_probs is not None:
                    log_probs = {token: float(tokens.log_probs[0]), **(tokens.top[0] if tokens.top else {})}
                outcome = token, log_probs
            read.append((sequence, outcome))
        return read
