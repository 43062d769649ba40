"""Answer checks: whether a final answer equals the ground truth, by VQA accuracy, relaxed accuracy, ANLS, option
letters, numbers and LaTeX.

In: two strings and the names of checks. Out: a bool. Source: upstream's
`reasoning_data_pipeline/utils/accuracy_reward.py`; `UPSTREAM_CHECKS` has its results where they are wrong.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from paddle_internvl.curation.final_answers import OPTIONS
from paddle_internvl.evaluation.scorers import anls as similarity
from paddle_internvl.evaluation.scorers import relaxed
from paddle_internvl.evaluation.scorers.relaxed import is_near, number
from paddle_internvl.evaluation.scorers.vqa_normalization import normalize

_CORRECT_ABOVE = 0.9  # of a score
_MATH_ERROR = 1e-3  # relative
_UNITS = re.compile(r"degrees|degree|\\angle|°|%|cm")
_FRACTION = re.compile(r"^\s*\d+\s*/\s*\d+\s*$")
_INSTALL = (
    "the check {check} needs math-verify: pip install 'paddle_internvl[curate]', or name other checks with --checks"
)


def checks_of(dataset: str) -> tuple[str, ...]:
    """Names of the checks that upstream uses for a data set.

    Args:
        dataset: name of the data set, e.g. of its file; a part of it decides, in upper or lower case.
    """
    name = dataset.lower()
    for parts, checks in _BY_DATASET:
        if any(part.lower() in name for part in parts):
            return checks
    return ("vqa_score", "mc_score", "math_score", "math_verify_score")


_BY_DATASET = (
    (("chartqa",), ("relaxed_accuracy",)),
    (("docvqa", "infographics"), ("anls",)),
    (("SROIE", "CLEVR_math", "geos", "geometry"), ("relaxed_accuracy", "vqa_score", "mc_score", "math_verify_score")),
    (("mavis",), ("vqa_score", "mc_score", "math_score", "latex_score", "math_verify_score")),
)


@functools.lru_cache(maxsize=1 << 16)
def is_correct(answer: str, reference: str, checks: tuple[str, ...], as_upstream: bool = False) -> bool:
    """Whether any of the checks scores a final answer above 0.9.

    Args:
        answer: final answer of a response.
        reference: ground truth.
        checks: names in `CHECKS`.
        as_upstream: score as upstream, also where it is wrong (`UPSTREAM_CHECKS`).
    Raises:
        ImportError: a check needs math-verify, which is not installed.
        ValueError: an unknown check.
    """
    unknown = [name for name in checks if name not in CHECKS]
    if unknown:
        raise ValueError(f"check {unknown[0]!r}; use some of {', '.join(CHECKS)}")
    if answer.lower() == reference.lower():
        return True
    table = CHECKS
    if as_upstream:
        table = UPSTREAM_CHECKS
        if "vqa_score" in checks and not (normalize(answer) and normalize(reference)):
            checks = tuple(name for name in checks if name != "math_verify_score")
    return any(score(answer, reference) > _CORRECT_ABOVE for name, score in table.items() if name in checks)


def vqa_score(answer: str, reference: str) -> float:
    """VQA accuracy: 1 if both are equal after normalization and not empty, and numbers have the same sign."""
    if "-" in answer + reference:  # which the normalization removes
        value, target = number(answer), number(reference)
        if value is not None and target is not None and value * target < 0:
            return 0.0
    return _vqa_accuracy(answer, reference)


def _vqa_accuracy(answer: str, reference: str) -> float:
    normalized = normalize(answer)
    return float(normalized != "" and normalized == normalize(reference))


def relaxed_accuracy(answer: str, reference: str) -> float:
    """ChartQA's relaxed accuracy, for which years must be equal and a percent sign is left out."""
    if len(reference) == 4 and reference.startswith("20"):
        return float(answer.lower() == reference.lower())
    return float(relaxed.relaxed_accuracy(answer, reference, percent=1.0))


def anls(answer: str, reference: str) -> float:
    """Normalized Levenshtein similarity: 1 for equal texts, 0 for texts without a common character."""
    return 1 - similarity.normalized_distance(answer, reference)


def mc_score(answer: str, reference: str) -> float:
    """Multiple choice: 'B. cat' and '(B) cat' equal 'B'."""
    return _same_option(answer, reference, lambda letter: letter.upper() in OPTIONS)


def math_score(answer: str, reference: str) -> float:
    """Numbers within 0.1 % of the reference, after degrees, percent signs and cm are left out."""
    value, target = (number(_UNITS.sub("", text)) for text in (answer, reference))
    if value is None or not target:
        return float(answer.lower() == reference.lower())
    return float(is_near(value, target, _MATH_ERROR))


def math_verify_score(answer: str, reference: str) -> float:
    """Equality of numbers and formulas by math-verify; LaTeX needs no $ around it."""
    marked = [f"${text}$" if "\\" in text and "$" not in text else text for text in (answer, reference)]
    return _math_verify(answer, reference) or (_math_verify(*marked) if marked != [answer, reference] else 0.0)


def _math_verify(answer: str, reference: str) -> float:
    try:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify
    except ImportError:
        raise ImportError(_INSTALL.format(check="math_verify_score")) from None
    kinds = [StringExtractionConfig(), LatexExtractionConfig(), ExprExtractionConfig()]
    try:
        return float(verify(parse(reference), parse(answer, extraction_config=kinds)))
    except Exception:  # sympy fails in many ways on texts that are no formulas
        return 0.0


def latex_score(answer: str, reference: str) -> float:
    """Equality of two formulas by sympy, if one of them has a backslash or is a fraction of whole numbers."""
    if not any("\\" in text or _FRACTION.match(text) for text in (answer, reference)):
        return 0.0
    try:
        from sympy.parsing.latex import parse_latex

        parse_latex("1")  # needs antlr4 too
    except ImportError:
        raise ImportError(_INSTALL.format(check="latex_score")) from None
    try:
        return float(bool(parse_latex(answer).equals(parse_latex(reference))))
    except Exception:  # as above
        return 0.0


def _same_option(answer: str, reference: str, is_letter: Callable[[str], bool]) -> float:
    answer, reference = answer.strip(), reference.strip()
    if answer.lower() != reference.lower():
        if len(answer) >= 2 and answer[1] == "." and is_letter(answer[0]):
            answer = answer[0]
        elif len(answer) >= 3 and answer[0] == "(" and answer[2] == ")" and is_letter(answer[1]):
            answer = answer[1]
    return float(answer.lower() == reference.lower())


# From cheap to expensive.
CHECKS: dict[str, Callable[[str, str], float]] = {
    check.__name__: check
    for check in (vqa_score, relaxed_accuracy, mc_score, math_score, anls, latex_score, math_verify_score)
}
UPSTREAM_CHECKS = {
    **CHECKS,
    "anls": similarity.normalized_distance,  # the distance where the similarity is meant
    "vqa_score": _vqa_accuracy,  # '-5' equals '5'
    "math_verify_score": _math_verify,  # LaTeX without $ is found in part only
    "mc_score": lambda answer, reference: _same_option(answer, reference, lambda _: True),  # '3.5' equals '3'
}
