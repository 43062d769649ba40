"""Exact match of GQA and OCR-VQA: the answer equals a reference but for case and blanks around.

Sources: VLMEvalKit's `process_line` (`accuracy`); upstream's `convert_gqa_for_eval.py`, which also removes the dots at
the end, with GQA's official `eval.py`.
"""

from collections.abc import Sequence

from paddle_internvl.evaluation.scorers.rowwise import rowwise
from paddle_internvl.evaluation.scorers.scores import Verdict


def exact_match(answer: str, references: Sequence[str]) -> Verdict:
    """1 if the answer equals one of the references without case and blanks around."""
    text = answer.strip().lower()
    return Verdict(float(text in {reference.strip().lower() for reference in references}), text)


def gqa_match(answer: str, references: Sequence[str]) -> Verdict:
    """GQA's exact match with references as they are, after case and dots at the end of the answer are removed."""
    text = answer.strip().rstrip(".").lower()
    return Verdict(float(text in references), text)


score_exact = rowwise(exact_match)
score_internvl_gqa = rowwise(gqa_match)
