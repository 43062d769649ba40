"""Tables of runs: the cards' layouts, differences, partial runs, formats, plots."""

import argparse
import csv
import io
import json

import pytest

from paddle_internvl.cli import eval_table
from paddle_internvl.evaluation.plots import plotted_card
from paddle_internvl.evaluation.published import CARDS
from paddle_internvl.evaluation.run_scores import read_runs
from paddle_internvl.evaluation.table import tables_of
from paddle_internvl.evaluation.table_formats import FORMATS

MPO = {
    "MMBench_TEST_EN_V11": (80.0, 4000), "MMBench_TEST_CN_V11": (78.0, 4000), "MMStar": (60.5, 1500),
    "MMMU_DEV_VAL": (51.5, 1050), "MathVista_MINI": (65.0, 1000), "HallusionBench": (48.0, 951),
    "AI2D_TEST": (82.0, 3088), "OCRBench": (881.0, 1000), "MMVet": (67.0, 218),
}  # fmt: skip
MODEL = "InternVL2_5-4B-MPO"


def write(folder, model, benchmark, headline, scored, expected=None, **more):
    document = {
        "benchmark": benchmark, "rules": "vlmevalkit", "scores": {"none/Overall": headline}, "headline": headline,
        "scored": scored, "expected": expected or scored, "rows": {}, "notes": [], **more,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    file = folder / f"{model}_{benchmark}.score.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / MODEL
    for name, (headline, rows) in MPO.items():
        write(folder, MODEL, name, headline, rows)
    return folder


def test_a_complete_run_stands_beside_its_card(run_folder):
    (table,) = tables_of(read_runs([run_folder]))
    published, ours, difference, rows = table.rows
    assert table.header == ("Model", "Avg.", *(column.name for column in CARDS["mpo"].columns))
    assert published[:4] == ("InternVL2-5-4B-MPO (card)", "67.6", "78.6", "60.2")
    mean = (79 + 60.5 + 51.5 + 65 + 48 + 82 + 88.1 + 67) / 8
    assert ours[:4] == (f"{MODEL} (run)", f"{mean:.1f}", "79.0", "60.5")
    assert ours[8] == "88.1"  # OCRBench's points / 10
    assert difference[:4] == ("difference", f"{mean - 67.6:+.1f}", "+0.4", "+0.3")
    assert rows[2:4] == ("8000/8000", "1500/1500")
    assert table.notes == ()


def test_partial_runs_get_no_figure(run_folder):
    write(run_folder, MODEL, "MMStar", 70.0, 50)  # --limit 50: all rows of it are answered
    write(run_folder, MODEL, "AI2D_TEST", None, 3000, 3088)
    write(run_folder, MODEL, "MMVet", None, 218, notes=["no judge: no figure"])
    (table,) = tables_of(read_runs([run_folder]))
    ours = dict(zip(table.header, table.rows[1], strict=True))
    assert (ours["Avg."], ours["MMStar"], ours["AI2D"]) == ("-", "50 of 1500 rows", "3000 of 3088 rows")
    assert ours["MMVet"] == "no figure"
    assert dict(zip(table.header, table.rows[2], strict=True))["MMStar"] == "-"
    assert "MMVet: no judge: no figure" in table.notes


def test_errata_rules_and_other_sources_are_named(tmp_path):
    write(tmp_path / "a", "InternVL2_5-8B", "MMBench_DEV_EN_V11", 84.0, 4876)
    write(tmp_path / "a", "InternVL2_5-8B", "MMStar", 63.0, 1500)
    (table,) = tables_of(read_runs([tmp_path]))
    assert table.rows[0][1] == "68.1"
    assert "the card prints 68.9 for InternVL2-5-8B; its figures give 68.1" in table.notes
    assert any(note.startswith("MMBench v1.1 is of MMBench_DEV_EN_V11") for note in table.notes)
    write(tmp_path / "b", "internvl2-8b", "ChartQA_TEST", 83.0, 2500)
    write(tmp_path / "b", "internvl2-8b", "Mine", 12.345, 10)
    pictures, others = tables_of(read_runs([tmp_path / "b"]))
    chartqa = next(row for row in pictures.rows if row[0] == "ChartQA")
    assert chartqa == ("ChartQA", "83.3", "83.0", "-0.3", "2500/2500")
    assert "ChartQA is by the rules vlmevalkit; the card's is by the rules internvl" in pictures.notes
    assert others.rows == (("Mine", "12.35", "10/10"),)


def test_splits_of_one_file_fill_the_grounding_card(tmp_path):
    splits = ("RefCOCO_val", "RefCOCO_testA", "RefCOCO_testB", "RefCOCO+_val", "RefCOCO+_testA", "RefCOCO+_testB")
    scores = {
        f"{split.lower()}/Precision@1": 80.0 + i for i, split in enumerate((*splits, "RefCOCOg_val", "RefCOCOg_test"))
    }
    write(tmp_path / "x", "InternVL2-8B", "RefCOCO", 83.5, 57457, scores=scores, rules="internvl")
    (table,) = tables_of(read_runs([tmp_path / "x"]))
    assert table.rows[1][:3] == ("InternVL2-8B (run)", "83.5", "80.0")
    assert table.rows[2][1] == "+0.6"


def test_formats(run_folder):
    tables = tables_of(read_runs([run_folder]), cards=["mpo", "internvl2"])
    lines = FORMATS["markdown"](tables).splitlines()
    assert lines[0] == "### InternVL2.5-MPO: pictures"
    assert len({len(line) for line in lines[2:8]}) == 1  # aligned
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](tables))))
    assert rows[0] == list(tables[0].header)
    assert [] in rows
    text = FORMATS["latex"](tables)
    assert r"InternVL2\_5-4B-MPO (run) & " in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


def test_command(run_folder, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    eval_table.add_arguments(parser)

    def run(*words):
        assert eval_table.run(parser.parse_args([str(word) for word in words])) == 0
        return capsys.readouterr().out

    pictures = [tmp_path / "radar.png", tmp_path / "bars.png"]
    (table,) = json.loads(run(run_folder, "--json", "--radar", pictures[0], "--bars", pictures[1]))
    assert table["rows"][2][0] == "difference"
    assert all(picture.stat().st_size > 10_000 for picture in pictures)
    assert run(run_folder, "--out", tmp_path / "t.md") == ""
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("### InternVL2.5-MPO")
    with pytest.raises(ValueError, match="no card has figures of GPT"):
        run(run_folder, "--beside", "GPT")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no \*.score.json"):
        run(tmp_path / "empty")


def test_bars_of_a_benchmark_that_stands_on_no_card(tmp_path):
    """Its score rows in per cent, for each run; a radar beside a card stays refused."""
    scores = {"none/Overall": 75.0, "none/colour": 100.0, "none/yes/no": 50.0}
    for model, changed in (("tiny", 50.0), ("tiny-mpo", 60.0)):
        write(tmp_path / model, model, "Tiny_DEV", 75.0, 20, scores={**scores, "none/yes/no": changed})
    runs = read_runs([tmp_path / "tiny", tmp_path / "tiny-mpo"])
    plotted = plotted_card(runs)
    assert plotted.names == ("Overall", "colour", "yes/no") and plotted.unit == "per cent"
    assert plotted.series == {"tiny (run)": (75.0, 100.0, 50.0), "tiny-mpo (run)": (75.0, 100.0, 60.0)}
    with pytest.raises(ValueError, match="no run has a complete figure of a card's table"):
        plotted_card(runs, ["mpo"])
    write(tmp_path / "tiny", "tiny", "Tiny_DEV", None, 19, 20)
    with pytest.raises(ValueError, match="no benchmark is scored whole in every run"):
        plotted_card(read_runs([tmp_path / "tiny"]))
