"""ANLS, the average normalized Levenshtein similarity of DocVQA, InfoVQA and MP-DocVQA.

Sources: arXiv 1905.13648; VLMEvalKit's `anls_compute`; upstream's `infographicsvqa_eval.py`, which gives the same.
"""

from collections.abc import Sequence

from paddle_internvl.evaluation.scorers.rowwise import rowwise
from paddle_internvl.evaluation.scorers.scores import Verdict

THRESHOLD = 0.5  # smaller similarities count as 0


def normalized_distance(answer: str, reference: str) -> float:
    """Levenshtein distance without case and repeated blanks, divided by the longer length of the texts as given."""
    longer = _longer_length(answer, reference)
    return levenshtein(_folded(answer), _folded(reference)) / longer if longer else 0.0


def levenshtein(first: str, second: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions that turn one text into the other."""
    row = list(range(len(first) + 1))
    for i, character in enumerate(second):
        previous, row = row, [i + 1]
        for j, other in enumerate(first):
            row.append(previous[j] if character == other else 1 + min(previous[j], previous[j + 1], row[-1]))
    return row[-1]


def anls(answer: str, references: Sequence[str]) -> Verdict:
    """Similarity to the nearest reference; 0 below the threshold."""
    distances = [normalized_distance(answer, text) for text in references if not _is_too_long(answer, text)]
    similarity = 1 - min(distances, default=1.0)
    return Verdict(similarity if similarity >= THRESHOLD else 0.0)


def _is_too_long(answer: str, reference: str) -> bool:
    """Whether the difference of the lengths alone is over the threshold: long reasoning needs no distance."""
    difference = abs(len(_folded(answer)) - len(_folded(reference)))
    return difference > (1 - THRESHOLD) * _longer_length(answer, reference)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _longer_length(answer: str, reference: str) -> int:
    return max(len(answer.upper()), len(reference.upper()))


score_anls = rowwise(anls)
