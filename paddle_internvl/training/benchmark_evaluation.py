"""Evaluation on benchmarks during training: the headline figures of a model that is being trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.chat.pipeline import Pipeline
from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint
from paddle_internvl.evaluation.suite import evaluate, plan


class BenchmarkEvaluation:
    """Benchmarks of a training run.

    Args:
        data: `NAME` or `NAME=PATH` of each benchmark.
        folder: of the answers and scores: `step-<n>/` for each evaluation.
    Raises:
        ValueError: an unknown benchmark, or faulty data.
    """

    def __init__(self, data: Sequence[str], folder: Path):
        self._data, self._folder = data, folder
        plan(data)

    def evaluate(self, model, step: int) -> dict[str, float]:
        """Headline figures of a model; rows without an answer are an error.

        Args:
            model: an `InternVLChatModel`, left in training mode if it was in it.
            step: optimizer step.
        Returns:
            eval_<benchmark>: its headline.
        Raises:
            ValueError: a row could not be answered, or a benchmark has no figure without a judge.
        """
        training = model.training
        model.eval()
        try:
            with Pipeline(model) as pipe:
                documents = evaluate(
                    ChatCheckpoint(pipe, f"step-{step}"), self._data, work_dir=self._folder, overwrite=True
                )
        finally:
            model.train() if training else model.eval()
        for name, document in documents.items():
            if document["headline"] is None:
                reason = next(iter([*document["failures"].values(), *document["notes"]]), "rows are unanswered")
                raise ValueError(f"eval_benchmarks: {name} has no headline figure: {reason}")
        return {f"eval_{name}": document["headline"] for name, document in documents.items()}
