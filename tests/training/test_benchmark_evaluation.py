"""Benchmarks during training: the figures are those of the same weights outside of it."""

import json

import pytest

from demo.tiny.benchmark import write_benchmark
from paddle_internvl.evaluation import evaluate
from tests.training.test_packed_runs import CHECKPOINT, run


def test_a_run_has_the_headline_of_its_weights(tmp_path):
    data = tmp_path / "Tiny_DEV.tsv"
    write_benchmark(data, per_kind=1)
    _, lines, model = run(
        tmp_path / "out", None, max_steps=1, eval_steps=1, learning_rate=0.0, eval_benchmarks=[f"Tiny_DEV={data}"]
    )
    alone = evaluate(CHECKPOINT, [f"Tiny_DEV={data}"], work_dir=tmp_path)["Tiny_DEV"]
    assert lines[-1]["eval_Tiny_DEV"] == alone["headline"] and model.training
    scores = json.loads((tmp_path / "out/eval/step-1/step-1_Tiny_DEV.score.json").read_text())
    assert scores["rows"] == alone["rows"]


def test_faulty_benchmarks_stop_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="Tiny_DEV"):
        run(tmp_path, None, eval_benchmarks=["Tiny_DVE=data.tsv"])
    assert not (tmp_path / "metrics.jsonl").exists()
