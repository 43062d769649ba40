"""CARDS: the figures that the model cards print, and the benchmarks that each of their columns stands for.

Sources: the cards of InternVL2_5-*-MPO (one table of eight benchmarks) and of InternVL2-8B (pictures, clips, boxes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A benchmark of a card's table.

    Attributes:
        name: of the column.
        sources: benchmarks whose mean is the figure, by the order of preference; () where no run gives it. Of
            BENCHMARK:ROW/COLUMN a cell of the score table is the figure instead of the headline.
        rules: rules of the scorers of the card's figure.
        factor: of a score, to become the card's figure: 0.1 for OCRBench, whose points the MPO cards divide.
        maximum: the best figure, for plots.
    """

    name: str
    sources: Sequence[tuple[str, ...]] = ()
    rules: str = "vlmevalkit"
    factor: float = 1.0
    maximum: float = 100.0


@dataclass(frozen=True)
class Card:
    """A table of a model card.

    Attributes:
        title: of the table.
        columns: benchmarks in the card's order.
        figures: by model, a figure or None for each column.
        averages: by model, the printed mean of the columns; {} where the card prints none.
        models_are_rows: layout of the card; else benchmarks are the rows.
        digits: after the point.
    """

    title: str
    columns: tuple[Column, ...]
    figures: Mapping[str, tuple[float | None, ...]]
    averages: Mapping[str, float]
    models_are_rows: bool
    digits: int = 1


def _read(text: str, averaged: bool) -> tuple[dict[str, tuple[float | None, ...]], dict[str, float]]:
    """Figures and averages of lines `model [average] figures`; - where the card has no figure."""
    lines = [line.split() for line in text.strip().splitlines()]
    numbers = {name: tuple(None if word == "-" else float(word) for word in words) for name, *words in lines}
    if not averaged:
        return numbers, {}
    return {name: row[1:] for name, row in numbers.items()}, {name: row[0] for name, row in numbers.items()}


_MPO = """
InternVL2-5-1B      54.9 66.5 51.3 41.2 47.1 39.4 69.0 77.4 47.2
InternVL2-5-1B-MPO  56.4 67.2 49.7 40.8 53.0 40.0 69.4 83.6 47.2
InternVL2-5-2B      59.9 70.9 54.3 43.2 51.1 42.3 74.9 80.2 62.6
InternVL2-5-2B-MPO  62.0 71.6 55.0 45.0 56.4 43.0 75.3 84.2 65.4
InternVL2-5-4B      65.1 78.2 58.7 51.8 60.8 46.6 81.4 82.0 61.5
InternVL2-5-4B-MPO  67.6 78.6 60.2 51.6 65.3 47.8 82.0 88.0 67.1
InternVL2-5-8B      68.9 82.5 63.2 56.2 64.5 49.0 84.6 82.1 62.8
InternVL2-5-8B-MPO  70.4 82.4 65.7 54.9 68.9 51.4 84.5 88.3 66.9
InternVL2-5-26B     71.6 84.6 66.5 60.7 68.0 55.8 86.2 85.4 65.4
InternVL2-5-26B-MPO 72.7 84.2 67.2 57.7 72.8 55.3 86.2 91.2 67.1
InternVL2-5-38B     73.5 85.4 68.5 64.6 72.4 57.9 87.6 84.1 67.2
InternVL2-5-38B-MPO 75.5 85.6 69.8 64.1 73.8 61.5 88.1 88.5 72.5
InternVL2-5-78B     75.2 87.5 69.5 70.0 70.6 57.4 89.1 85.3 71.8
InternVL2-5-78B-MPO 76.6 87.3 73.1 68.3 73.8 58.7 89.3 91.2 71.4
"""
_MPO_COLUMNS = (
    Column(
        "MMBench v1.1",
        (("MMBench_TEST_EN_V11", "MMBench_TEST_CN_V11"), ("MMBench_TEST_EN_V11",), ("MMBench_DEV_EN_V11",)),
    ),
    Column("MMStar", (("MMStar",),)),
    Column("MMMU", (("MMMU_DEV_VAL",),)),
    Column("MathVista", (("MathVista_MINI",),)),
    Column("HallusionBench", (("HallusionBench",),)),
    Column("AI2D", (("AI2D_TEST",),)),
    Column("OCRBench", (("OCRBench",),), factor=0.1),
    Column("MMVet", (("MMVet",),)),
)
# The mean of a row whose printed average is wrong: its figures give 68.1, the cards print 68.9.
ERRATA = {("mpo", "InternVL2-5-8B"): 68.1}

_PICTURES = """
MiniCPM-Llama3-V-2_5 84.8 -    -    76.6 725 2024.6 63.5 78.4 45.8 77.2 74.2 45.9 -    52.8 72.3 42.4 54.3 58.8
InternVL-Chat-V1-5   90.9 83.8 72.5 80.6 724 2187.8 66.0 80.7 46.8 82.2 82.0 69.8 62.8 55.4 76.0 49.3 53.5 61.7
InternVL2-8B         91.6 83.3 74.8 77.4 794 2210.3 64.4 83.8 51.8 81.7 81.2 75.9 60.0 54.2 76.2 45.2 58.3 64.1
"""
_PICTURE_COLUMNS = (
    Column("DocVQA", (("DocVQA_TEST",),), "internvl"),
    Column("ChartQA", (("ChartQA_TEST",),), "internvl"),
    Column("InfoVQA", (("InfoVQA_TEST",),), "internvl"),
    Column("TextVQA", (("TextVQA_VAL",),), "internvl"),
    Column("OCRBench", (("OCRBench",),), maximum=1000),
    Column("MME", (("MME",),), "internvl", maximum=2800),
    Column("RealWorldQA", (("RealWorldQA",),)),
    Column("AI2D", (("AI2D_TEST",),), "internvl"),
    Column("MMMU", (("MMMU_DEV_VAL",),)),
    Column("MMBench-EN", (("MMBench_TEST_EN",),)),
    Column("MMBench-CN", (("MMBench_TEST_CN",),)),
    Column("CCBench", (("CCBench",),)),
    Column("MMVet (GPT-4-0613)"),  # the official judge, on Hugging Face
    Column("MMVet (GPT-4-Turbo)", (("MMVet",),)),
    Column("SEED-Image", (("SEEDBench_IMG",),), "internvl"),
    Column("HallBench", (("HallusionBench",),)),
    Column("MathVista", (("MathVista_MINI",),)),
    Column("OpenCompass avg."),  # of eight benchmarks, two of which this card has not
)

_CLIPS = """
VideoChat2-HD-Mistral 60.4 -    -    42.3 54.6
Video-CCAM-9B         60.7 -    -    50.6 54.9
InternVL2-4B          63.7 1.10 1.18 51.4 53.4
InternVL2-8B          66.4 1.19 1.28 54.0 56.9
"""
_CLIP_COLUMNS = (
    Column("MVBench", (("MVBench",),), "internvl"),
    Column("MMBench-Video 8f", (("MMBench_Video_8frame_nopack",), ("MMBench-Video",)), maximum=3),
    Column("MMBench-Video 16f", (("MMBench_Video_16frame_nopack",),), maximum=3),
    Column("Video-MME w/o subs", (("Video-MME",), ("Video-MME_16frame",))),
    Column("Video-MME w subs", (("Video-MME_subs",), ("Video-MME_16frame_subs",))),
)

_BOXES = """
UNINEXT-H                  88.9 92.6 94.3 91.5 85.2 89.6 79.8 88.7 89.4
Mini-InternVL-Chat-2B-V1-5 75.8 80.7 86.7 72.9 72.5 82.3 60.8 75.6 74.9
Mini-InternVL-Chat-4B-V1-5 84.4 88.0 91.4 83.5 81.5 87.4 73.8 84.7 84.6
InternVL-Chat-V1-5         88.8 91.4 93.7 87.1 87.0 92.3 80.9 88.5 89.3
InternVL2-1B               79.9 83.6 88.7 79.8 76.0 83.6 67.7 80.2 79.9
InternVL2-2B               77.7 82.3 88.2 75.9 73.5 82.8 63.3 77.6 78.3
InternVL2-4B               84.4 88.5 91.2 83.9 81.2 87.2 73.8 84.6 84.6
InternVL2-8B               82.9 87.1 91.1 80.7 79.8 87.9 71.4 82.7 82.7
InternVL2-26B              88.5 91.2 93.3 87.4 86.8 91.0 81.2 88.5 88.6
InternVL2-40B              90.3 93.0 94.7 89.2 88.5 92.8 83.6 90.3 90.6
InternVL2-Llama3-76B       90.0 92.2 94.8 88.4 88.8 93.1 82.8 89.5 90.3
"""
_BOX_SPLITS = {
    "RefCOCO (val)": "RefCOCO_val", "RefCOCO (testA)": "RefCOCO_testA", "RefCOCO (testB)": "RefCOCO_testB",
    "RefCOCO+ (val)": "RefCOCO+_val", "RefCOCO+ (testA)": "RefCOCO+_testA", "RefCOCO+ (testB)": "RefCOCO+_testB",
    "RefCOCO-g (val)": "RefCOCOg_val", "RefCOCO-g (test)": "RefCOCOg_test",
}  # fmt: skip
_BOX_COLUMNS = tuple(
    Column(name, ((split,), (f"RefCOCO:{split}/Precision@1",)), "internvl") for name, split in _BOX_SPLITS.items()
)

CARDS: dict[str, Card] = {
    "mpo": Card("InternVL2.5-MPO: pictures", _MPO_COLUMNS, *_read(_MPO, averaged=True), models_are_rows=True),
    "internvl2": Card(
        "InternVL2: pictures", _PICTURE_COLUMNS, *_read(_PICTURES, averaged=False), models_are_rows=False
    ),
    "internvl2-video": Card(
        "InternVL2: clips", _CLIP_COLUMNS, *_read(_CLIPS, averaged=False), models_are_rows=False, digits=2
    ),
    "internvl2-grounding": Card("InternVL2: boxes", _BOX_COLUMNS, *_read(_BOXES, averaged=True), models_are_rows=True),
}


def published_model(name: str, card: Card) -> str | None:
    """The model of a card whose name equals a name but for case and separators; None: the card has not this model."""
    by_letters = {_letters(model): model for model in card.figures}
    return by_letters.get(_letters(name))


def _letters(name: str) -> str:
    """InternVL2_5-8B and InternVL2-5-8B are one model; -AWQ and -4bit copies are not."""
    return "".join(character for character in name.lower() if character.isalnum())
