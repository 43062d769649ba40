"""Scorers of RefCOCO, RefCOCO+ and RefCOCOg: Precision@1, the share of boxes whose IoU with the reference is 0.5.

Sources: VLMEvalKit e8e78f05 (it has RefCOCO since 2025-11), dataset/refcoco.py, with its tolerant parser; upstream's
`evaluate_grounding.py`, with which the card's figures are made.
"""

from collections.abc import Callable, Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers import boxes
from paddle_internvl.evaluation.scorers.boxes import Box
from paddle_internvl.evaluation.scorers.scores import Scorer, Scores, Verdict

_IOU = 0.5  # of a hit
_CORNERS = (("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), ("x1", "y1", "x2", "y2"))  # columns, in pixels
_SPLITS = (
    "refcoco_val", "refcoco_testa", "refcoco_testb", "refcoco+_val", "refcoco+_testa", "refcoco+_testb", "refcocog_val",
    "refcocog_test",
)  # fmt: skip
_SUFFIXES = {"val": "val", "test": "test", "testa": "testA", "testb": "testB"}

BoxIou = Callable[[str, Box, float, float], tuple[Box | None, float]]  # answer, reference, width, height -> box, IoU


def _tolerant(answer: str, reference: Box, width: float, height: float) -> tuple[Box | None, float]:
    numbers = boxes.four_numbers(answer)
    box = None if numbers is None else boxes.in_pixels(numbers, width, height)
    return box, 0.0 if box is None else boxes.iou(box, reference)


def _strict(answer: str, reference: Box, width: float, height: float) -> tuple[Box | None, float]:
    box = boxes.first_brackets(answer)
    return box, 0.0 if box is None else boxes.upstream_iou(box, reference, width, height)


def _scorer(box_iou: BoxIou) -> Scorer:
    def score(items: Sequence[Item], answers: Mapping[Index, str], _judge: Judge | None = None) -> Scores:
        rows, ious = {}, {}
        for item in items:
            target = _target(item)
            rows[item.index] = Verdict(None)
            if item.index in answers and target is not None:
                box, iou = box_iou(answers[item.index], *target)
                ious.setdefault(_split(item), []).append(iou)
                rows[item.index] = Verdict(float(iou >= _IOU), None if box is None else str(list(box)))
        table = _table(ious)
        return Scores(table, table.get(("Average", "Precision@1")), rows)

    return score


def _target(item: Item) -> tuple[Box, float, float] | None:
    """Reference box in pixels, width and height of the picture; None where a column of the row is missing or bad.

    The box is in the columns of its corners, in `bbox` or in the answer; the last two may be fractions of the picture.
    """
    columns = item.columns
    for names in _CORNERS:
        if all(name in columns for name in names):
            box, fractions = tuple(_float(columns[name]) for name in names), False
            break
    else:
        box = boxes.four_numbers(columns.get("bbox") or item.answer or "") or (None,)
        fractions = None not in box and boxes.are_fractions(box)
    default = "1" if fractions else ""
    width, height = (_float(columns.get(name, default)) for name in ("width", "height"))
    if None in box or not width or not height:
        return None
    return boxes.in_pixels(box, width, height) if fractions else box, width, height


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _split(item: Item) -> str:
    """Split of a row: its own, or by its category as VLMEvalKit: 'RefCOCO+ test A' is RefCOCO+_testA."""
    data_set, _, part = item.category.strip().partition(" ")
    if item.split != "none" or not data_set:
        return item.split
    part = part.strip()
    suffix = part.lower().replace(" ", "").replace("_", "").replace("-", "")
    return f"{data_set}_{_SUFFIXES.get(suffix, part)}" if part else data_set


def _table(ious: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    """Per cent by split, and the plain mean of the splits, of the eight published ones where there are any."""
    table = {}
    for split, values in ious.items():
        table[split, "Precision@1"] = 100 * sum(iou >= _IOU for iou in values) / len(values)
        table[split, "Average IoU"] = 100 * sum(values) / len(values)
    averaged = [split for split in ious if split.lower() in _SPLITS] or list(ious)
    for column in ("Precision@1", "Average IoU") if averaged else ():
        table["Average", column] = sum(table[split, column] for split in averaged) / len(averaged)
    return table


score_refcoco = _scorer(_tolerant)
score_internvl_refcoco = _scorer(_strict)
