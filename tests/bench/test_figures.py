"""Figures of trials computed by hand: medians, ratios, errors, shares; tables and plots of them."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from paddle_internvl.bench import figures, growth, plots
from paddle_internvl.bench.load import Outcome
from paddle_internvl.bench.stages import BEST, BFLOAT16, INT8, LLAMA, OPENVINO, OURS, TORCH, TORCH_INT8, Stage
from paddle_internvl.bench.trials import Trial
from paddle_internvl.bench.work import Costs
from tests.random_checkpoints import tiny_config

COSTS = Costs(tiny_config("qwen2"))
STAGE = Stage(
    "decode at 5", "decode", {"length": 5, "tokens": 4}, (OURS, INT8, TORCH, BEST, TORCH_INT8),
    goals={OURS: (0.5, None), INT8: (0.25, 0.55)}, per="token",
)  # fmt: skip


def trial(name, seconds, foreign=0.0, peak=100):
    return Trial(name, 0, seconds, 1, foreign, peak, 50, stored=32 if name in (TORCH, BEST) else 16)


@pytest.fixture
def summary():
    trials = [trial(OURS, s) for s in (4.0, 8.0, 100.0)] + [trial(INT8, 2.0, foreign=0.5)]
    trials += [trial(TORCH, s) for s in (16.0, 12.0, 20.0)] + [trial(BEST, 10.0), trial(TORCH_INT8, 4.0)]
    outputs = {name: np.array([1.0, 2.0]) * scale for name, scale in ((OURS, 1.0), (INT8, 1.1), (TORCH, 1.0))}
    elements = COSTS.decode(5).elements
    return figures.summary(STAGE, trials, outputs, COSTS, {"flops": 1e9, "bandwidth": float(elements)})


def test_medians_and_ratios(summary):
    ours, int8, torch = (summary["contenders"][name] for name in (OURS, INT8, TORCH))
    assert ours["seconds"] == [1.0, 2.0, 25.0] and ours["median"] == 2.0  # per token: four are decoded
    assert ours["of torch"] == 0.5 == ours["goal of torch"] and ours["rival"] is None  # no rival reads 16 bits a weight
    assert int8["of rival"] == 0.5 and int8["rival"] == TORCH_INT8 and int8["goal of rival"] == 0.55
    assert int8["calm"] == 0 and ours["calm"] == 3
    assert "of torch" not in torch and torch["median"] == 4.0
    assert ours["error"] == 0.0 and int8["error"] == pytest.approx(0.1)


def test_disturbed_trials_do_not_count_beside_others():
    trials = [trial(OURS, s, foreign) for s, foreign in ((4.0, 0.0), (100.0, 0.5), (8.0, 0.1), (200.0, 0.2))]
    row = figures.summary(STAGE, trials, {}, COSTS, {"flops": 1e9, "bandwidth": 1e9})["contenders"][OURS]
    assert row["median"] == 1.5 and row["calm"] == 2 and row["seconds"] == [1.0, 25.0, 2.0, 50.0]


def test_shares_of_the_machine(summary):
    work, ours = COSTS.decode(5), summary["contenders"][OURS]
    assert ours["flops share"] == pytest.approx(work.flops / 2.0 / 1e9, abs=1e-4)
    # 16 bits a weight in 2 s, on a machine that reads a byte of each in one second
    assert ours["bandwidth share"] == pytest.approx(
        (2 * work.elements + 4 * work.cache) / 2.0 / work.elements, abs=1e-3
    )


def test_the_peak_of_float32_on_amx_tiles():
    """A float32 product is three of bfloat16 there."""
    peaks = {"flops": 1e9, "bandwidth": 1e9, "AMX bfloat16": 6e9}
    row = figures.summary(STAGE, [trial(OURS, 4.0)], {}, COSTS, peaks)["contenders"][OURS]
    assert row["flops share"] == pytest.approx(COSTS.decode(5).flops / 4.0 / 2e9, abs=1e-4)


def test_without_torch_there_are_no_ratios():
    made = figures.summary(STAGE, [trial(OURS, 4.0)], {OURS: np.ones(2)}, COSTS, {"flops": 1e9, "bandwidth": 1e9})
    assert not {"of torch", "of rival", "error"} & made["contenders"][OURS].keys()
    assert made["contenders"][OURS]["rival"] is None


def test_without_peaks_there_are_no_shares():
    row = figures.summary(STAGE, [trial(OURS, 4.0)], {}, COSTS, {})["contenders"][OURS]
    assert "flops share" not in row and "bandwidth share" not in row


def test_the_fastest_rival_of_the_same_precision():
    names = [OURS, BFLOAT16, TORCH, *OPENVINO.values(), *LLAMA.values()]
    seconds = dict(zip(names, (4.0, 3.0, 9.0, 5.0, 2.0, 1.0, 0.5, 1.5, 0.8, 0.6)))
    prefill = Stage("prefill 5", "prefill", {"length": 5}, tuple(names))
    rows = figures.summary(prefill, [trial(*of) for of in seconds.items()], {}, COSTS, {})["contenders"]
    assert (rows[OURS]["rival"], rows[OURS]["of rival"]) == (OPENVINO["float32"], 0.8)
    assert (rows[BFLOAT16]["rival"], rows[BFLOAT16]["of rival"]) == (LLAMA["bf16"], 2.0)
    decode = figures.summary(STAGE, [trial(*of) for of in seconds.items()], {}, COSTS, {})["contenders"]
    assert decode[OURS]["rival"] == LLAMA["bf16"]  # by the weights that are read, which are bfloat16


def test_a_rival_that_computes_something_else():
    trials = [trial(OURS, 1.0), trial(OPENVINO["bfloat16"], 1.0)]
    outputs = {OURS: np.array([1.0, 2.0]), OPENVINO["bfloat16"]: np.array([1.0, 2.08])}
    made = figures.summary(STAGE, trials, outputs, COSTS, {})["contenders"]
    assert made[OPENVINO["bfloat16"]]["error"] == pytest.approx(0.04)
    with pytest.raises(ValueError, match="OpenVINO bfloat16 computes something else than ours in decode at 5"):
        figures.summary(STAGE, trials, {**outputs, OPENVINO["bfloat16"]: np.array([2.0, 1.0])}, COSTS, {})


def test_errors():
    assert figures.error(np.array([1.0, -3.0]), np.array([1.0, -4.0])) == 0.25
    assert figures.error(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 0, 4]])) == 0.25
    with pytest.raises(ValueError, match=r"one side made \[2\], the other \[3\]"):
        figures.error(np.ones(2), np.ones(3))


def document(summary) -> dict:
    described = {"processor": "a machine", "cores": 2}
    return {"benchmark": "model", "model": "tiny", "machine": described, "stages": [summary]}


def printed(table) -> str:
    """A table as text."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_table_and_json(summary):
    whole = document(summary)
    assert json.loads(json.dumps(whole)) == whole and figures.disturbed(whole) == 1
    text = printed(figures.table(whole))
    assert "0.50 (goal 0.50)" in text and "500.0 ms/token *" in text and "1.0e-01" in text


def test_plots(summary, tmp_path):
    files = plots.draw_model(document(summary), tmp_path / "new")
    assert [file.name for file in files] == ["tiny-ratios.png", "tiny-times.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    del summary["contenders"][TORCH]
    for row in summary["contenders"].values():
        row.pop("of torch", None)
    trained = {**document(summary), "model": "tiny, 2 layers"}  # of `bench train`
    assert [file.name for file in plots.draw_model(trained, tmp_path)] == ["tiny-2-layers-times.png"]


def test_plot_of_a_load(tmp_path):
    """The curves are those of the answered requests alone; a kind without an answer has none."""
    times = {"text": (0.1, 0.2), "picture": (0.5,), "video": ()}
    outcomes = [Outcome(kind, 0, chunks=[t, 2 * t], ended=3 * t) for kind, some in times.items() for t in some]
    outcomes += [Outcome("text", 0, status="timeout", ended=9.0), Outcome("video", 0, status="500", ended=8.0)]
    written = plots.draw_load(outcomes, "5 requests", tmp_path / "load.svg").read_text()
    for text in ("5 requests", "text (2)", "picture (1)", "time to first token, seconds", "whole answer, seconds"):
        assert text in written
    assert "video" not in written


AT = [1, 2, 4, 8, 16]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponents_of_exact_curves(power):
    assert growth.exponent(AT, [3 * x**power for x in AT]) == pytest.approx(power)
    hidden = growth.exponent(AT, [50 + x**power for x in AT])  # a constant cost hides some of the growth
    assert 0 < hidden < power


def test_bounds_of_a_curve():
    curve = growth.Curve("rows", "a stage", "prefill", "batch", tuple(AT), seconds=1.1, memory=1.1)
    points = [{"seconds": x, "memory": 1000 * x, "foreign": 0.0} for x in AT]
    assert growth.summary(curve, AT, points)["holds"]
    squared = [{**point, "memory": 10 * x**2} for point, x in zip(points, AT)]
    made = growth.summary(curve, AT, squared)
    assert not made["holds"] and made["memory exponent"] == pytest.approx(2.0) and made["disturbed"] == 0
    noisy = [{**point, "foreign": 0.5 * (x == 16)} for point, x in zip(points, AT)]
    assert growth.summary(curve, AT, noisy)["disturbed"] == 1
    assert "grows too fast" in printed(growth.table({"curves": [made]}))


def test_a_rival_of_a_curve_has_no_bound():
    curve = growth.Curve("rows", "a stage", "prefill", "batch", tuple(AT), seconds=1.1, memory=1.1)
    points = [{"seconds": x, "memory": 1000 * x, "foreign": 0.0} for x in AT]
    squared = [{**point, "seconds": x**2} for point, x in zip(points, AT)]
    made = growth.summary(curve, AT, points, {"llama.cpp bf16": squared})
    assert made["holds"] and made["beside"]["llama.cpp bf16"]["seconds exponent"] == pytest.approx(2.0)
    shown = printed(growth.table({"curves": [made]}))
    assert "grows too fast" not in shown and shown.count("<= 1.1") == 2 and "llama.cpp bf16" in shown


def test_arithmetic_of_the_kernels_is_left_out_without_them():
    (prompt,) = (curve for curve in growth.CURVES if curve.name == "prompt")
    assert list(growth._contenders(prompt, {"gguf": None}, kernels=False)) == ["ours", "llama.cpp bf16"]


def test_growth_plots(tmp_path):
    curve = growth.Curve("rows", "a stage", "prefill", "batch", tuple(AT), seconds=1.1, memory=1.1)
    points = [{"seconds": x, "memory": 1000 * x, "foreign": 0.0} for x in AT]
    made = growth.summary(curve, AT, points, {"llama.cpp bf16": points})
    (file,) = plots.draw_growth({"model": "tiny", "curves": [made]}, tmp_path)
    assert file.name == "growth-rows.png" and file.read_bytes().startswith(b"\x89PNG")
