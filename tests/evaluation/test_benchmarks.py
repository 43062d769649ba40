"""The table of benchmarks, and the user's own rows."""

import json
import re

import pytest

from paddle_internvl.evaluation.benchmark import RULES, Benchmark
from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.prompt_forms import UPSTREAM_FORMS
from paddle_internvl.evaluation.readers import READERS
from paddle_internvl.evaluation.user_benchmarks import all_benchmarks, find_benchmark
from paddle_internvl.evaluation.video_forms import VIDEO_FORMS
from tests.random_checkpoints import ROOT


@pytest.mark.parametrize("row", BENCHMARKS.values(), ids=lambda row: row.name)
def test_rows_name_forms_and_readers_that_exist(row):
    assert row.question_type in ("MCQ", "Y/N", "VQA", "VIDEO", "GROUNDING", "CAPTION")
    assert set(row.scorers) <= set(RULES) and (row.file or row.upstream)
    assert (row.video is not None) == (row.question_type == "VIDEO") == (row.frames is not None)
    assert row.video is None or row.video in VIDEO_FORMS
    if row.upstream and not row.video:
        assert row.upstream.form in UPSTREAM_FORMS and row.upstream.reader in READERS


def test_the_cards_columns_have_rows():
    columns = {column for row in BENCHMARKS.values() for column in [row.cards.get("mpo")] if column}
    assert columns == {
        "MMBench v1.1", "MMStar", "MMMU", "MathVista", "HallusionBench", "AI2D", "OCRBench", "MMVet",
    }  # fmt: skip


def test_benchmarks_of_a_users_file(tmp_path):
    rows = [
        {"name": "Mine", "like": "MMStar", "rows": 3},
        {"name": "Signs", "question_type": "VQA", "max_num": 4, "scorers": {"vlmevalkit": "anls"}, "file": "signs.tsv"},
    ]
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(json.dumps(rows))
    mine, signs = (find_benchmark(name, yaml) for name in ("Mine", "Signs"))
    assert mine.file == "Mine.tsv" and mine.rows == 3 and mine.cards == {} and mine.reasoning_default
    assert signs == Benchmark("Signs", "VQA", 4, {"vlmevalkit": "anls"}, file="signs.tsv")
    assert find_benchmark("MMStar", yaml) is BENCHMARKS["MMStar"]
    module = tmp_path / "mine.py"
    module.write_text(
        "from paddle_internvl.evaluation.benchmarks import Benchmark\n"
        'BENCHMARKS = [Benchmark("Other", "Y/N", 6, {}, file="o.tsv")]\n'
    )
    assert all_benchmarks(module)["Other"].file == "o.tsv"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "must hold a list"),
        ([{"name": "X", "tiles": 1}], "benchmark 0: unknown fields tiles"),
        ([{"name": "X", "like": "Y"}], "there is no benchmark 'Y'"),
        ([{"name": "X"}], "benchmark 0: .*question_type"),
        ([{}], "with a 'name'"),
    ],
)
def test_faults_of_a_users_file_name_the_row(tmp_path, rows, message):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message) as error:
        all_benchmarks(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("page", ["benchmarks.md", "benchmarks.zh.md"])
def test_the_documents_table_has_every_benchmark_of_the_cards(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:MPO|InternVL2)[^|]*) \| [^|]* \| ([^|]*) \|", text, re.M)
    shown = {(card, name) for cards, names in rows for card in re.findall(r"\w+", cards)
             for name in re.findall("`([^`]+)`", names)}  # fmt: skip
    titles = {"mpo": "MPO", "internvl2": "InternVL2"}
    listed = {(titles[card], name) for name, row in BENCHMARKS.items() for card in row.cards}
    splits = {(card, name) for card, name in listed if name.startswith("RefCOCO") and name != "RefCOCO"}
    unpublished = {("InternVL2", name) for name in ("DocVQA_VAL", "InfoVQA_VAL")}  # stand in for the test files
    assert len(splits) == 8 and {pair for pair in shown if pair[1] in BENCHMARKS} == listed - splits | unpublished


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.yaml", "a: ["), ("a.py", "1 / 0"), ("b.py", "(")])
def test_a_users_file_that_cannot_be_read_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}(: | is no )"):
        all_benchmarks(tmp_path / name)


def test_an_unknown_name_has_near_ones():
    with pytest.raises(ValueError, match="did you mean MMStar"):
        find_benchmark("mmstars")
