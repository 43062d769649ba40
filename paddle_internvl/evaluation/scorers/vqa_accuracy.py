"""VQA accuracy of TextVQA, OKVQA and VizWiz: an answer is right if three of the other people give it.

Sources: VQA's official evaluation; VLMEvalKit's `process_line` (`vqa_score`); upstream's `textvqa_eval.py`, which
tokenizes the answers before their normalization.
"""

from collections.abc import Sequence
from functools import partial

from paddle_internvl.evaluation.scorers.rowwise import rowwise
from paddle_internvl.evaluation.scorers.scores import Verdict
from paddle_internvl.evaluation.scorers.vqa_normalization import normalize

_FULL_SCORE = 3  # equal answers of other people


def vqa_accuracy(answer: str, references: Sequence[str], tokenize: bool) -> Verdict:
    """Mean of min(1, equal answers among the others / 3), with each of the people left out once.

    Args:
        answer: of the model.
        references: answers of people, usually ten.
        tokenize: EvalAI's tokenization before the normalization, see `normalize`.
    """
    normalized = normalize(answer, tokenize)
    is_equal = [normalize(reference, tokenize) == normalized for reference in references]
    equal, people = sum(is_equal), len(is_equal)
    left_out = (min(1.0, (equal - same) / _FULL_SCORE) for same in is_equal)
    return Verdict(sum(left_out) / people, normalized)


score_vqa_accuracy = rowwise(partial(vqa_accuracy, tokenize=False))
score_internvl_vqa_accuracy = rowwise(partial(vqa_accuracy, tokenize=True))
