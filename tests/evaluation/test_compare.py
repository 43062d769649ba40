"""Comparison of runs: flips, McNemar's exact test against scipy's binomial test, the command."""

import argparse
import json

import pytest
from scipy.stats import binomtest

from paddle_internvl.cli import eval_compare
from paddle_internvl.evaluation.compare import compare_runs, mcnemar
from paddle_internvl.evaluation.run_scores import one_run
from tests.evaluation.test_table import write


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 5), (3, 17), (40, 20), (700, 600), (0, 3000)])
def test_mcnemar_is_the_binomial_test(better, worse):
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def runs(tmp_path):
    verdicts = {"a": [1, 1, 0, 0, 1, None, 0.5], "b": [1, 0, 1, 1, None, 1, 0.75]}
    for model, row in verdicts.items():
        rows = {str(i): {"verdict": verdict, "extracted": None} for i, verdict in enumerate(row)}
        write(tmp_path / model, model, "MMStar", 50.0, 7, rows=rows)
        lines = [json.dumps({"index": i, "prompt": "?", "answer": f"{model}{i}\n" + "x" * 300}) for i in range(7)]
        (tmp_path / model / f"{model}_MMStar.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_flips(runs):
    (one,) = compare_runs(one_run(runs / "a"), one_run(runs / "b"))
    assert [(flip.index, flip.first, flip.second) for flip in one.flips] == [
        ("1", 1, 0), ("2", 0, 1), ("3", 0, 1), ("6", 0.5, 0.75),
    ]  # fmt: skip
    assert (one.rows, one.unpaired, one.better, one.worse) == (5, 2, 3, 1)
    assert (one.first, one.second) == (50.0, 75.0)
    assert one.p_value == pytest.approx(binomtest(3, 4).pvalue)


def test_runs_that_do_not_fit(runs):
    with pytest.raises(ValueError, match="has runs of a, b"):
        one_run(runs)
    write(runs / "c", "c", "MMStar", 50.0, 7, rules="internvl")
    with pytest.raises(ValueError, match="rules vlmevalkit and internvl"):
        compare_runs(one_run(runs / "a"), one_run(runs / "c"))
    write(runs / "d", "d", "MMVet", 50.0, 7)
    with pytest.raises(ValueError, match="no benchmark in common"):
        compare_runs(one_run(runs / "a"), one_run(runs / "d"))
    with pytest.raises(ValueError, match=r"has no b_MMVet.score.json"):
        compare_runs(one_run(runs / "d"), one_run(runs / "b"), ["MMVet"])


def test_command(runs, capsys):
    parser = argparse.ArgumentParser()
    eval_compare.add_arguments(parser)
    words = [str(runs / "a"), str(runs / "b")]
    assert eval_compare.run(parser.parse_args([*words, "--flips", "1"])) == 0
    printed = capsys.readouterr().out
    assert "| MMStar    | 5    | 50.00 | 75.00 | +25.00 | 3        | 1       | 0.6250 |" in printed
    assert "MMStar, row 1\n  A 1: 'a1\\nxxx" in printed
    assert "row 2" not in printed
    assert eval_compare.run(parser.parse_args([*words, "--json"])) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["better"], len(document["flips"])) == (3, 4)
