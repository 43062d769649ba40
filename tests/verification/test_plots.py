"""`verify --plot`: positions of errors and bounds, colours of results."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from paddle_internvl import plotting
from paddle_internvl.cli.main import main
from paddle_internvl.verification.stages import StageResult
from tests.random_checkpoints import ROOT

pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgb

from paddle_internvl.verification import plots, stages

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
RESULTS = [
    StageResult("tiles", (1,), 0.0, 2e-5),
    StageResult("vit.embed", (1,), 3e-7, 2e-5),
    StageResult("vit.block.0", (1,), 4e-3, 2e-5),
    StageResult("projector", (1,), float("inf"), 0.1),
    StageResult("tokens", (1,), 1.0, None),
]


def drawn(figure) -> dict:
    """What each stage's and bound's line shows, by its name."""
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.yaxis_inverted()
    return {line.get_gid(): line for line in axes.get_lines() if line.get_gid()}


def test_dots_and_bounds_stand_where_they_should():
    figure = plots.figure_of(RESULTS)
    left, right = figure.axes[0].get_xlim()
    lines = drawn(figure)
    expected = {"tiles": left, "vit.embed": 3e-7, "vit.block.0": 4e-3, "projector": right, "tokens": 1.0}
    assert {result.stage: lines[result.stage].get_xdata()[0] for result in RESULTS} == expected
    assert left < 3e-7 and right > 1
    assert [lines[result.stage].get_ydata()[0] for result in RESULTS] == [0, 1, 2, 3, 4]
    bounds = {name.removeprefix("bound "): line for name, line in lines.items() if name.startswith("bound ")}
    assert {name: set(line.get_xdata()) for name, line in bounds.items()} == {
        "tiles": {2e-5}, "vit.embed": {2e-5}, "vit.block.0": {2e-5}, "projector": {0.1},
    }  # fmt: skip
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [result.stage for result in RESULTS]


def test_marks_tell_verdicts_apart():
    lines = drawn(plots.figure_of(RESULTS))
    colors = [lines[result.stage].get_color() for result in RESULTS]
    assert colors[0] == colors[1] and colors[2] == colors[3] and len(set(colors)) == 3
    assert lines["tiles"].get_markerfacecolor() == "white" and lines["projector"].get_marker() == ">"


def test_nothing_apart_at_all():
    results = [StageResult("tiles", (1,), 0.0, 2e-5), StageResult("tokens", (1,), 0.0, None)]
    figure = plots.figure_of(results)
    assert drawn(figure)["tokens"].get_xdata()[0] == figure.axes[0].get_xlim()[0] < 2e-5


def test_the_file_shows_a_stage_out_of_its_bound(tmp_path):
    red = np.array([round(255 * each) for each in to_rgb(plots.OUT_OF_BOUND)])
    seen = {}
    for name, results in (("all", RESULTS), ("held", RESULTS[:2])):
        plots.save(results, "B against A", tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        seen[name] = int((abs(pixels - red).max(axis=2) < 8).sum())
    # the legend holds one dot of the kind in both
    assert seen["all"] > 2 * seen["held"] > 0


def test_command(tmp_path, capsys, monkeypatch):
    """The plot shows the numbers of the JSON document."""
    shown = []
    monkeypatch.setattr(plots, "figure_of", lambda results, title, made=plots.figure_of: (
        shown.append((results, title)) or made(results, title)
    ))  # fmt: skip
    monkeypatch.setattr(stages, "sample_picture", lambda: Image.effect_noise((448, 448), 60).convert("RGB"))
    target = tmp_path / "errors.svg"
    assert main(["verify", str(CHECKPOINT), str(CHECKPOINT), "--json", "--plot", str(target)]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    ((results, title),) = shown
    assert [(each["stage"], each["error"]) for each in document["stages"]] == [(r.stage, r.error) for r in results]
    assert title.splitlines() == [str(CHECKPOINT), f"against {CHECKPOINT}"]
    assert all(f'id="{result.stage}"' in target.read_text() for result in results)


@pytest.mark.parametrize(
    "target, message", [("out.xyz", "has the ending of no plot; use one of"), ("no/out.png", "there is no folder")]
)
def test_an_invalid_target_is_refused_before_the_stages_run(target, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "capture_stages", lambda *_, **__: pytest.fail("it computes first"))
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CHECKPOINT), str(CHECKPOINT), "--plot", str(tmp_path / target)])
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib; pip install 'paddle_internvl\[plots\]'"):
        plotting.plot_file("out.png")
