"""Scorer of OCRBench: number of answers that contain a reference, by group.

Source: VLMEvalKit 00e0cf87, dataset/image_vqa.py, `OCRBench.evaluate`.
"""

from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import with_verdict

FORMULAS = "Handwritten Mathematical Expression Recognition"
# Categories by the group whose count they add to.
GROUPS = {
    "Text Recognition": (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    FORMULAS: (FORMULAS,),
}


def score_ocrbench(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of OCRBench.

    Args:
        items: questions; `answer` is a list of references.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    Returns:
        Right answers per group, `Final Score` (their sum, of 1000 rows) and `Final Score Norm` (a tenth of it); the
        headline is the final score.
    """
    rows = {item.index: _verdict(item, answers.get(item.index)) for item in items}
    scored = with_verdict(items, rows)
    table = {
        group: sum(verdict for item, verdict in scored if item.category in categories)
        for group, categories in GROUPS.items()
    }
    table["Final Score"] = sum(table.values())
    table["Final Score Norm"] = table["Final Score"] / 10
    headline = table["Final Score"] if scored else None
    return Scores({("none", column): value for column, value in table.items()}, headline, rows)


def _verdict(item: Item, answer: str | None) -> Verdict:
    """Verdict on an answer; `extracted` is the reference that it contains."""
    if answer is None or item.answer is None:
        return Verdict(None)
    fold = _without_blanks if item.category == FORMULAS else _lower
    text = fold(answer)
    found = next((reference for reference in list_text(item.answer) if fold(reference) in text), None)
    return Verdict(float(found is not None), found)


def _without_blanks(text: str) -> str:
    """Text of a formula without spaces and line feeds; case counts."""
    return text.strip().replace("\n", " ").replace(" ", "")


def _lower(text: str) -> str:
    """Text on one line, without case."""
    return text.lower().strip().replace("\n", " ")
