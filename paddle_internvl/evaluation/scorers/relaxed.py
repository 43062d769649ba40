"""Relaxed accuracy of ChartQA: numbers within 5 % of the reference; other texts equal but for case.

Sources: arXiv 2203.10244, section 5.1; VLMEvalKit's and upstream's `relaxed_correctness`. Both call it with answer and
reference exchanged (VLMEvalKit until 2025-09-01), so that they measure the error against the answer. Here the error is
measured against the reference, as the paper has it.
"""

from collections.abc import Sequence

from paddle_internvl.evaluation.scorers.rowwise import rowwise
from paddle_internvl.evaluation.scorers.scores import Verdict

RELATIVE_ERROR = 0.05


def number(text: str, percent: float | None = None) -> float | None:
    """The number of a text; None for other texts.

    Args:
        text: of an answer.
        percent: divisor of a number with a percent sign; None: a percent sign makes another text.
    """
    divisor = 1.0
    if percent is not None and text.endswith("%"):
        text, divisor = text.rstrip("%"), percent
    try:
        return float(text) / divisor
    except ValueError:
        return None


def is_near(value: float, target: float, relative_error: float) -> bool:
    """Whether the error of a number relative to the target, which is not 0, is within a limit."""
    return abs(value - target) / abs(target) <= relative_error


def relaxed_accuracy(answer: str, reference: str, percent: float = 100.0) -> bool:
    """Whether an answer is right under relaxed accuracy; with a reference of 0 the texts must be equal.

    Args:
        answer: of the model, without blanks around.
        reference: ground truth.
        percent: divisor of a number with a percent sign.
    """
    value, target = number(answer, percent), number(reference, percent)
    if value is None or not target:
        return answer.lower() == reference.lower()
    return is_near(value, target, RELATIVE_ERROR)


def best_relaxed_accuracy(answer: str, references: Sequence[str]) -> Verdict:
    """Relaxed accuracy against the best of the references."""
    answer = answer.strip()
    verdict = float(any(relaxed_accuracy(answer, reference) for reference in references))
    return Verdict(verdict, None if number(answer, percent=1.0) is None else answer)


score_relaxed = rowwise(best_relaxed_accuracy, headline="mean of splits")
score_internvl_relaxed = rowwise(best_relaxed_accuracy, lists=False, headline="mean of splits")
