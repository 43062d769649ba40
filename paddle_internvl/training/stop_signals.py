"""SIGINT (Ctrl-C) and SIGTERM during training: finish the step, save a checkpoint, leave."""

from __future__ import annotations

import signal
import sys
import threading

from paddlenlp.trainer import TrainerCallback

from paddle_internvl.training.metrics import sum_over_ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals(TrainerCallback):
    """Ends the training after the step during which a signal arrived at any rank. A context manager.

    A second Ctrl-C ends it at once, without a checkpoint. Signals that are
    ignored stay so, and in a thread other than the main one all signals are left alone.

    Attributes:
        received: the signal; None: none has arrived.
        stopped: whether the training was ended by a signal, on whichever rank.
    """

    def __init__(self):
        self.received: int | None = None
        self.stopped = False
        self._before: dict = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            caught = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._receive) for number in caught}
        return self

    def __exit__(self, *_error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        if number == self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None:
            self.received = number  # first: another signal may come while the line is written
            print("stopping after this step", file=sys.stderr, flush=True)

    def on_step_end(self, args, state, control, **_trainer):
        """Save and stop if a signal has arrived at any rank."""
        if sum_over_ranks([self.received is not None])[0]:
            self.stopped = control.should_save = control.should_training_stop = True

    def leave(self, output: str, step: int) -> None:
        """Leave a stopped training.

        Args:
            output: OUTPUT of the run.
            step: the last step.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM, with the exit code of a process that it ended.
        """
        print(
            f"stopped after step {step}; the same command continues from {output}/checkpoint-{step}",
            file=sys.stderr,
            flush=True,
        )
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)
