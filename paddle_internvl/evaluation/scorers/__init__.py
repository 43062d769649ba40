"""SCORERS: one function per rule by which answers become verdicts."""

from paddle_internvl.evaluation.scorers.choice import score_choice, score_mmmu
from paddle_internvl.evaluation.scorers.circular import score_circular
from paddle_internvl.evaluation.scorers.hallusionbench import score_hallusionbench
from paddle_internvl.evaluation.scorers.mme import score_internvl_mme, score_mme
from paddle_internvl.evaluation.scorers.scores import Scorer, Scores, Verdict

SCORERS: dict[str, Scorer] = {
    # VLMEvalKit, December 2024, text kept.
    "choice": score_choice,
    "circular": score_circular,
    "hallusionbench": score_hallusionbench,
    "mme": score_mme,
    "mmmu": score_mmmu,
    # Upstream's scripts.
    "internvl_mme": score_internvl_mme,
}

__all__ = ["SCORERS", "Scorer", "Scores", "Verdict"]
