"""Scorers of MME: points of fourteen categories, perception and cognition, by VLMEvalKit's and by upstream's rules.

In: two questions per picture. Out: accuracy + accuracy of pictures (both answers right), each x100, per category.
Sources: VLMEvalKit 00e0cf87, dataset/utils/yorn.py, `MME_rating`; OpenGVLab/InternVL 2410d1d,
internvl_chat/eval/mme/{eval,calculation}.py.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.labels import label_verdicts
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import percent, with_verdict

PERCEPTION = (
    "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene",
)  # fmt: skip
COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
_REPLACEMENTS = (("\n", ""), ("不是", "No"), ("是", "Yes"), ("否", "No"))
_CHINESE = re.compile("[\u4e00-\u9fa5]")
_PREFIX = 4  # characters of an answer in which upstream looks for yes and no


def score_mme(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MME by VLMEvalKit's rules; the two questions of a picture have the same `image_path`.

    Args:
        items: questions, two per picture.
        answers: of the model, by index.
        judge: reads answers that are neither yes nor no; None: these answers are wrong.
    Returns:
        Points per category, of `perception` and of `reasoning`; the headline is the sum, None where a category has
        no scored row.
    """
    rows, notes = label_verdicts(items, answers, judge)
    return _score(items, rows, _same_picture, {"perception": PERCEPTION, "reasoning": COGNITION}, notes)


def score_internvl_mme(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MME by upstream's rules: two rows in order are a picture; labels of `upstream_label`.

    Args:
        items: questions in the order of the files.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    Returns:
        Points per category, of `Perception` and of `Cognition`; the headline is the sum, None where a category has
        no scored row.
    """
    rows = {}
    for item in items:
        label = upstream_label(answers[item.index]) if item.index in answers else None
        rows[item.index] = Verdict.of_equality(label, item.answer and item.answer.lower())
    return _score(items, rows, _two_in_order, {"Perception": PERCEPTION, "Cognition": COGNITION}, ())


def upstream_label(answer: str) -> str:
    """Upstream's label of an answer: yes or no within its first four characters, else "other"."""
    for old, new in _REPLACEMENTS:
        answer = answer.replace(old, new)
    answer = _CHINESE.sub("", answer.lower().replace("true", "yes").replace("false", "no"))
    prefix = answer[:_PREFIX]
    return "yes" if "yes" in prefix else "no" if "no" in prefix else "other"


def _same_picture(items: Sequence[Item]) -> list[list[Item]]:
    """The first two questions of every picture of a category."""
    pictures = defaultdict(list)
    for position, item in enumerate(items):
        pictures[item.columns.get("image_path", position // 2)].append(item)
    return [questions[:2] for questions in pictures.values()]


def _two_in_order(items: Sequence[Item]) -> list[list[Item]]:
    """Questions of a category, two by two."""
    return [list(items[start : start + 2]) for start in range(0, len(items), 2)]


def _score(
    items: Sequence[Item],
    rows: Mapping[Index, Verdict],
    pairs: Callable[[Sequence[Item]], list[list[Item]]],
    sums: Mapping[str, Sequence[str]],
    notes: tuple[str, ...],
) -> Scores:
    """Points of MME from verdicts; a picture with fewer than two verdicts counts in no accuracy of pictures."""
    categories = defaultdict(list)
    for item in items:
        categories[item.category].append(item)
    points = {}
    for category, members in categories.items():
        if scored := with_verdict(members, rows):
            both = [[rows[item.index].verdict for item in pair] for pair in pairs(members)]
            plus = [first * second for first, second in (pair for pair in both if len(pair) == 2 and None not in pair)]
            points[category] = percent(verdict for _, verdict in scored) + percent(plus)
    missing = [category for names in sums.values() for category in names if category not in points]
    if missing:
        notes = (*notes, f"no sum: no scored row of {', '.join(missing)}")
    else:
        points.update({name: sum(points[category] for category in names) for name, names in sums.items()})
    table = {("none", name): value for name, value in points.items()}
    return Scores(table, None if missing else sum(points[name] for name in sums), dict(rows), notes)
