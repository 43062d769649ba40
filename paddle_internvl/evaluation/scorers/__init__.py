"""SCORERS: one function per rule by which answers become verdicts."""

from paddle_internvl.evaluation.scorers.scores import Scorer, Scores, Verdict

SCORERS: dict[str, Scorer] = {}

__all__ = ["SCORERS", "Scorer", "Scores", "Verdict"]
