"""SCORERS: one function per rule by which answers become verdicts."""

from paddle_internvl.evaluation.scorers.anls import score_anls
from paddle_internvl.evaluation.scorers.captions import score_captions, score_internvl_captions
from paddle_internvl.evaluation.scorers.choice import score_choice, score_mmmu
from paddle_internvl.evaluation.scorers.circular import score_circular
from paddle_internvl.evaluation.scorers.exact import score_exact, score_internvl_gqa
from paddle_internvl.evaluation.scorers.grounding import score_internvl_refcoco, score_refcoco
from paddle_internvl.evaluation.scorers.hallusionbench import score_hallusionbench
from paddle_internvl.evaluation.scorers.mathvista import score_mathvista
from paddle_internvl.evaluation.scorers.mmbench_video import score_mmbench_video
from paddle_internvl.evaluation.scorers.mme import score_internvl_mme, score_mme
from paddle_internvl.evaluation.scorers.mmvet import score_mmvet
from paddle_internvl.evaluation.scorers.mvbench import score_internvl_mvbench, score_mvbench
from paddle_internvl.evaluation.scorers.ocrbench import score_ocrbench
from paddle_internvl.evaluation.scorers.pope import score_internvl_pope, score_pope
from paddle_internvl.evaluation.scorers.relaxed import score_internvl_relaxed, score_relaxed
from paddle_internvl.evaluation.scorers.scores import Scorer, Scores, Verdict
from paddle_internvl.evaluation.scorers.upstream_choice import score_internvl_scienceqa, score_internvl_seed
from paddle_internvl.evaluation.scorers.upstream_mathvista import score_internvl_mathvista
from paddle_internvl.evaluation.scorers.upstream_mmmu import score_internvl_mmmu
from paddle_internvl.evaluation.scorers.video_mme import score_video_mme
from paddle_internvl.evaluation.scorers.vqa_accuracy import score_internvl_vqa_accuracy, score_vqa_accuracy

SCORERS: dict[str, Scorer] = {
    # VLMEvalKit, December 2024, text kept.
    "choice": score_choice,
    "circular": score_circular,
    "hallusionbench": score_hallusionbench,
    "mathvista": score_mathvista,
    "mmbench_video": score_mmbench_video,
    "mme": score_mme,
    "mmmu": score_mmmu,
    "mmvet": score_mmvet,
    "mvbench": score_mvbench,
    "ocrbench": score_ocrbench,
    "pope": score_pope,
    "video_mme": score_video_mme,
    "anls": score_anls,
    "captions": score_captions,
    "exact": score_exact,
    "refcoco": score_refcoco,
    "relaxed": score_relaxed,
    "vqa_accuracy": score_vqa_accuracy,
    # Upstream's scripts.
    "internvl_choice": score_exact,
    "internvl_mathvista": score_internvl_mathvista,
    "internvl_mme": score_internvl_mme,
    "internvl_mmmu": score_internvl_mmmu,
    "internvl_mvbench": score_internvl_mvbench,
    "internvl_pope": score_internvl_pope,
    "internvl_scienceqa": score_internvl_scienceqa,
    "internvl_seed": score_internvl_seed,
    "internvl_anls": score_anls,
    "internvl_captions": score_internvl_captions,
    "internvl_gqa": score_internvl_gqa,
    "internvl_refcoco": score_internvl_refcoco,
    "internvl_relaxed": score_internvl_relaxed,
    "internvl_vqa_accuracy": score_internvl_vqa_accuracy,
}

__all__ = ["SCORERS", "Scorer", "Scores", "Verdict"]
