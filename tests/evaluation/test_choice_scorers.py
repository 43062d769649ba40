"""Letters, choices, circular questions, HallusionBench and MME against the reference implementations' own results."""

import pytest

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.scorers import SCORERS
from paddle_internvl.evaluation.scorers.letters import infer_letter
from tests.evaluation.golden_items import golden, read_answers, read_items
from tests.evaluation.scripted_judge import one_after_the_other


def score(benchmark: str, scorer: str, judge=None):
    reference = golden(benchmark)
    items = read_items(reference["items"])
    return reference["vlmevalkit"], SCORERS[scorer](items, read_answers(items, reference["answers"]), judge)


def verdicts(scores) -> dict[str, float]:
    return {str(index): row.verdict for index, row in scores.rows.items() if row.verdict is not None}


def extracted(scores) -> dict[str, str | None]:
    return {str(index): row.extracted for index, row in scores.rows.items()}


@pytest.mark.parametrize(("benchmark", "scorer"), [("mmstar", "choice"), ("mmbench", "circular")])
def test_choices(benchmark, scorer):
    reference, scores = score(benchmark, scorer)
    split = reference["scores"].pop("split")
    assert scores.table == pytest.approx(
        {(split, column): 100 * value for column, value in reference["scores"].items()}, abs=1e-6
    )
    assert scores.headline == pytest.approx(reference["headline"], abs=1e-4)
    assert verdicts(scores) == reference["verdict"]
    assert extracted(scores) == reference["extracted"]
    assert "no judge" in scores.notes[0]


def test_hallusionbench():
    reference, scores = score("hallusionbench", "hallusionbench")
    table = {
        (row["split"], column): value
        for row in reference["scores"]
        for column, value in row.items()
        if column != "split"
    }
    assert scores.table == pytest.approx(table, abs=1e-6)
    assert scores.headline == pytest.approx(reference["headline"], abs=1e-4)
    assert verdicts(scores) == reference["verdict"]
    assert extracted(scores) == reference["extracted"]


def test_mme():
    reference, scores = score("mme", "mme")
    assert scores.table == {("none", column): value for column, value in reference["scores"].items()}
    assert scores.headline == reference["headline"]["sum"]
    assert verdicts(scores) == reference["verdict"]
    assert extracted(scores) == reference["extracted"]


def test_mme_by_upstream_rules():
    reference = golden("mme")["upstream"]
    items = read_items(reference["items"])
    answers = {f"{name}/{n}": text for name, texts in reference["answers"].items() for n, text in enumerate(texts)}
    scores = SCORERS["internvl_mme"](items, answers, None)
    assert scores.table == {("none", column): value for column, value in reference["scores"].items()}
    assert scores.headline == reference["headline"]


@pytest.mark.parametrize(("benchmark", "scorer"), [("mmstar", "choice"), ("mme", "mme")])
def test_judged(benchmark, scorer):
    """The judge's replies become the reference's results, by the reference's own prompts."""
    reference = golden(benchmark)
    cases = reference["judge"]
    items = {str(item.index): item for item in read_items(reference["items"])}
    for index, case in cases.items():
        item = items[index]
        replies = case.get("replies") or [case["first_reply"], case["later_replies"]]
        judge = one_after_the_other(*replies)
        row = SCORERS[scorer]([item], {item.index: reference["answers"][index]}, judge).rows[item.index]
        assert row.extracted == case.get("result", case.get("option"))
        assert len(judge.prompts) == case["calls"]
        assert judge.prompts[0] == case.get("prompt", judge.prompts[0])
    assert sum("prompt" in case for case in cases.values())


def test_missing_answers_are_not_counted():
    items = [Item(index, "?", "A", {"A": "x", "B": "y"}) for index in (1, 1_000_001, 2, 1_000_002)]
    scores = SCORERS["circular"](items, {1: "A", 1_000_001: "B", 2: "A"}, None)
    assert (scores.rows[1].verdict, scores.rows[2].verdict, scores.headline) == (0.0, None, 0.0)
    pair = [Item(f"color/{n}", "?", "Yes", category="color", columns={"image_path": "0.jpg"}) for n in (0, 1)]
    scores = SCORERS["mme"](pair, {"color/0": "Yes"}, None)
    assert scores.table == {("none", "color"): 100.0}
    assert scores.headline is None


def test_a_failing_judge_is_counted():
    item = Item(0, "?", "A", {"A": "x", "B": "y"})
    scores = SCORERS["choice"]([item], {0: "neither"}, one_after_the_other("perhaps"))
    assert scores.rows[0].verdict == 0.0
    assert scores.notes == ("the judge failed on 1 answers, which count as wrong",)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("A or B", None),
        ("a pear", "B"),
        ("an apple and a pear", None),
        ("Z", "Z"),
        ("", None),
    ],
)
def test_letters(answer, letter):
    assert infer_letter(answer, {"A": "Apple", "B": "Pear"}) == letter
