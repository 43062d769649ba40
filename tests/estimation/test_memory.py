"""Plans that fit where one does not, and `paddle-internvl estimate`."""

import json
import re
import subprocess
import sys

import pytest

from paddle_internvl import plotting
from paddle_internvl.cli.main import main
from paddle_internvl.estimation import Plan, estimate, fitting_plans, parameter_counts
from tests.random_checkpoints import ROOT

BIG = str(ROOT / "configs/internvl2_5-78b.json")


def config_of(name: str) -> dict:
    return json.loads((ROOT / f"configs/{name}.json").read_text())


def test_fitting_plans_are_the_mildest_that_fit():
    config, plan = config_of("internvl2_5-38b"), Plan(context=8192)
    room = 40 << 30
    plans = fitting_plans(config, plan, gpus=8, memory=room)
    assert [(each.tp, each.bits, each.tiles) for each, _ in plans][:1] == [(4, None, 13)]
    assert all(size == estimate(config, each) and size.total <= room for each, size in plans)
    assert estimate(config, Plan(tp=2)).total > room
    few = [each for each, _ in plans if each.bits]
    assert len(few) == 1 and few[0].tp == 1
    both = fitting_plans(config_of("internvl2_5-78b"), Plan(), gpus=2, memory=48 << 30)
    assert [(each.tp, each.bits) for each, _ in both] == [(2, 4)] or [(each.tp, each.bits) for each, _ in both] == [
        (2, 8)
    ]


def test_awq_fits_in_float16_and_counts_float_weights():
    config = config_of("internvl2_5-8b")
    counts = parameter_counts(config)
    fields = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    config["llm_config"]["quantization_config"] = fields
    plans = fitting_plans(config, Plan(), gpus=1, memory=12 << 30)
    assert [plan.dtype for plan, _ in plans] == ["float16"]
    assert parameter_counts(config) == counts


def test_on_the_command_line(capsys):
    assert main(["estimate", BIG, "--gpus", "4", "--memory", "80", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    parts = document["bytes on each device"]
    assert document["plan"]["tp"] == 4 and document["plan"]["tiles"] == 13 and document["fits"]
    assert parts.pop("total") == sum(parts.values()) and document["possible tp"][:4] == [1, 2, 4, 8]
    assert main(["estimate", BIG, "--gpus", "8", "--tp", "1", "--memory", "80"]) == 1
    shown = capsys.readouterr().out
    assert "does not fit into 80 GiB" in shown and "would fit: tp 4, bfloat16, batch 1" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tp", "3", "--gpus", "8"], "tensor parallel over 3 is not possible for 64 heads, 8 kv heads"),
        (["--tp", "4"], "--tp 4 needs as many cards; --gpus is 1"),
        (["--dtype", "int8"], "dtype='int8' is not supported"),
        (["--tiles", "40"], "40 tiles are 10240 tokens, more than the context of 8192"),
        (["--batch", "0"], "batch=0 is not above 0"),
        (["--device", "cpu", "--gpus", "2"], "--gpus is for --device gpu"),
        (["--memory", "0"], "must be above 0"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert main(["estimate", BIG, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_only_whole_models(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internlm2"}))
    assert main(["estimate", str(tmp_path)]) == 2
    assert "no InternVL chat model: its config.json has model_type 'internlm2'" in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    call = f"main(['estimate', {BIG!r}])"
    code = f"import sys; from paddle_internvl.cli.main import main; {call}; print('paddle' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "False"


def test_plot_has_the_figures_of_the_document(tmp_path, capsys, monkeypatch):
    """A bar for each degree and bits; its parts are those of the JSON document of such a plan."""
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, file: figures.append(figure))
    assert main(["estimate", BIG, "--memory", "80", "--plot", str(tmp_path / "memory.svg")]) == 1
    capsys.readouterr()
    (axes,) = figures[0].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    drawn = {name.get_label(): [bar.get_width() for bar in name] for name in axes.containers}
    assert labels[:4] == ["1 card, bfloat16", "1 card, 8 bits", "1 card, 4 bits", "2 cards, bfloat16"]
    assert main(["estimate", BIG, "--gpus", "2", "--tp", "2", "--bits", "4", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["bytes on each device"]
    row = labels.index("2 cards, 4 bits")
    assert {name: values[row] for name, values in drawn.items()} == pytest.approx(
        {name.replace("_", " "): size / (1 << 30) for name, size in parts.items() if name != "total"}
    )
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [80]


def test_plot_of_a_recipe(tmp_path, capsys, monkeypatch):
    """The recipe and its changes, each with the total of the text."""
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(plotting, "save", lambda figure, file: figures.append(figure))
    recipe = str(ROOT / "demo/finetune/captions.json")
    words = ["estimate", BIG, "--train", recipe, "--gpus", "8", "--memory", "1", "--plot", str(tmp_path / "memory.svg")]
    assert main(words) == 1
    shown = capsys.readouterr().out
    (axes,) = figures[0].axes
    totals = [sum(bar[row].get_width() for bar in axes.containers) for row in range(len(axes.get_yticklabels()))]
    assert re.search(r"total +([\d.]+) GiB", shown)[1] == f"{totals[0]:.2f}"
    assert axes.get_yticklabels()[0].get_text() == "the recipe" and min(totals[1:]) < totals[0]
