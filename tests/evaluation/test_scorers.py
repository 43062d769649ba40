"""Scorers against what the reference implementations make of invented rows with awkward answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.scorers import SCORERS
from tests.evaluation.golden_items import golden, read_answers, read_items
from tests.evaluation.scripted_judge import ScriptedJudge
from tests.goldens.evaluation import invented

CASES = [  # golden, key of its results, scorer, replies of the judge, limit of the table's rounding
    ("choice", "vlmevalkit", "choice", None, 1e-6),
    ("choice", "judged", "choice", invented.LETTER_REPLIES, 1e-6),
    ("choice", "upstream_seed", "internvl_seed", None, None),
    ("choice", "upstream_scienceqa", "internvl_scienceqa", None, None),
    ("circular", "vlmevalkit", "circular", None, 1e-6),
    ("circular", "judged", "circular", invented.LETTER_REPLIES, 1e-6),
    ("mmmu", "vlmevalkit", "mmmu", None, 1e-6),
    ("mmmu", "upstream", "internvl_mmmu", None, None),
    ("pope", "vlmevalkit", "pope", None, 1e-6),
    ("pope", "judged", "pope", invented.LABEL_REPLIES, 1e-6),
    ("pope", "upstream", "internvl_pope", None, 1e-6),
    ("ocrbench", "vlmevalkit", "ocrbench", None, 1e-6),
    ("mathvista", "vlmevalkit", "mathvista", None, 1e-6),
    ("mathvista", "judged", "mathvista", invented.VALUE_REPLIES, 1e-6),
    ("mathvista", "upstream", "internvl_mathvista", None, None),
    ("mmvet", "judged", "mmvet", invented.SCORE_REPLIES, 1e-6),
    ("mmbench_video", "judged", "mmbench_video", invented.RATING_REPLIES, 0.0051),
    ("video_mme", "vlmevalkit", "video_mme", None, 0.051),
    ("mvbench", "vlmevalkit", "mvbench", None, 0.0051),
    ("mvbench", "judged", "mvbench", invented.LETTER_REPLIES, 0.0051),
    ("mvbench", "upstream", "internvl_mvbench", None, None),
]


ONE_TRY = {"choice", "circular", "mvbench", "mmbench_video"}  # the reference asks its judge at temperature 0 only


@pytest.mark.parametrize(("benchmark", "key", "scorer", "replies", "rounding"), CASES)
def test_scores_of_the_reference(benchmark, key, scorer, replies, rounding):
    reference = golden(benchmark)
    result = reference[key]

    def reply(prompt: str, temperature: float) -> str:
        return invented.reply(replies, prompt, 0.0 if scorer in ONE_TRY else temperature)

    items = read_items(reference["items"])
    scores = SCORERS[scorer](
        items, read_answers(items, reference["answers"]), ScriptedJudge(reply) if replies else None
    )
    rows = {str(index): row for index, row in scores.rows.items()}
    verdicts = {index: max(verdict, 0) for index, verdict in result["verdict"].items()}  # -1: the judge failed
    assert {index: rows[index].verdict for index in verdicts} == verdicts
    assert all(rows[index].verdict == 0.0 for index in result.get("raises", ()))
    if rounding is not None:
        table = {f"{row}/{column}": value for (row, column), value in scores.table.items()}
        assert {key: table[key] for key in result["table"]} == pytest.approx(result["table"], abs=rounding)
        assert key == "upstream" or set(table) == set(result["table"])
    if "extracted" in result:
        assert {index: row.extracted for index, row in rows.items()} == result["extracted"]


def test_mmmu_table_of_the_official_script():
    """The script leaves out the rows on which upstream's post-processing raises."""
    reference = golden("mmmu")
    result = reference["upstream"]
    items = [item for item in read_items(reference["items"]) if str(item.index) not in result["raises"]]
    scores = SCORERS["internvl_mmmu"](items, reference["answers"], None)
    table = {column: value for (split, column), value in scores.table.items() if split == "validation"}
    assert table == pytest.approx(result["validation"], abs=0.051)
    assert scores.headline == table["Overall"]


@pytest.mark.parametrize("scorer", ["mvbench", "internvl_mvbench"])
@pytest.mark.parametrize("answer", invented.EMPTY_WORDS)
def test_no_answer_is_wrong(scorer, answer):
    """Where both references take an empty first word or a failed request for right."""
    item = Item(0, "?", "cat", columns={"candidates": "['cat', 'dog']", "task_type": "Action Count"})
    assert SCORERS[scorer]([item], {0: answer}, None).headline == 0.0


@pytest.mark.parametrize(("kind", "reference", "answer"), [("list", "[1, 2]", "[1,2]"), ("integer", "0", "0")])
def test_mathvista_values_that_the_reference_misses(kind, reference, answer):
    item = Item(0, "?", reference, columns={"question_type": "free_form", "answer_type": kind})
    assert SCORERS["mathvista"]([item], {0: answer}, None).headline == 100.0


def test_groups_of_mathvista_are_columns_or_metadata():
    columns = {"question_type": "free_form", "answer_type": "integer"}
    groups = {"skills": "['algebra', 'geometry']", "task": "figure"}
    metadata = {"metadata": "{'skills': ['algebra', 'geometry'], 'task': 'figure'}"}
    tables = [
        SCORERS["internvl_mathvista"]([Item(0, "?", "1", columns=columns | more)], {0: "1"}, None).table
        for more in (groups, metadata)
    ]
    assert tables[0] == tables[1]
    assert {"average", "skills.geometry", "task.figure"} <= {row for row, _ in tables[0]}


@pytest.mark.parametrize("scorer", ["mmvet", "mmbench_video"])
def test_no_figure_without_a_judge(scorer):
    scores = SCORERS[scorer]([Item(0, "?", "x")], {0: "x"}, None)
    assert (scores.headline, scores.table, scores.rows[0].verdict) == (None, {}, None)
    assert "no figure" in scores.notes[0]


def test_a_row_without_an_answer_has_no_verdict():
    for benchmark, _, scorer, *_ in CASES:
        items = read_items(golden(benchmark)["items"])[:6]
        scores = SCORERS[scorer](items, {}, None)
        assert scores.headline is None
        assert {row.verdict for row in scores.rows.values()} == {None}


WILD = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            "A",
            "是",
            "<ref>B</ref><box>[[1,2,3,4]]</box>",
            "\\boxed{[1, 2}",
            "[[[[",
            "[{{}}]",
            "nan",
            "1e999",
            "\ud800",
        ]
    ),
    st.builds(
        lambda text, times: text * times, st.sampled_from(["9", "[", "(A)", "yes no ", "1,", "-1.5e"]), st.just(2000)
    ),
)


@settings(max_examples=8, deadline=None)
@given(answer=WILD, reply=WILD)
def test_every_answer_gets_a_verdict(answer, reply):
    for benchmark, key, scorer, *_ in CASES:
        items = ITEMS.setdefault(benchmark, read_items(golden(benchmark)["items"])[:4])  # four: a list of MathVista
        judge = ScriptedJudge(lambda _prompt, _temperature: reply) if key == "judged" else None
        scores = SCORERS[scorer](items, {item.index: answer for item in items}, judge)
        assert set(scores.rows) == {item.index for item in items}
        assert judge is None or scores.rows[items[0].index].verdict is not None


ITEMS: dict[str, list[Item]] = {}
