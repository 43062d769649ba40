"""`paddle-internvl info --plot`: the file holds the picture under the grid that the document names."""

import json

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT

CHECKPOINT = str(ROOT / "demo/checkpoints/internvl-tiny")
WIDE = str(ROOT / "demo/assets/wide.png")


def test_plot_shows_the_grid_of_the_document(tmp_path, capsys):
    target = tmp_path / "tiles.png"
    assert main(["info", CHECKPOINT, "--image", WIDE, "--json", "--plot", str(target)]) == 0
    picture = json.loads(capsys.readouterr().out)["picture"]
    columns, rows = picture["grid (columns x rows)"]
    assert (columns, rows) == (3, 1)
    drawn = np.asarray(Image.open(target).convert("L")).astype(int)[16:315, 16:912]  # the picture on its sheet
    middle = drawn[250]  # below the numbers
    dark = np.flatnonzero((middle[:-2] < 50) & (middle[1:-1] > 200) & (middle[2:] < 50)) + 1
    assert dark.tolist() == [round(896 / 3), round(2 * 896 / 3)]
    assert main(["info", CHECKPOINT, "--image", WIDE, "--max-num", "1", "--plot", str(target)]) == 0
    assert (np.asarray(Image.open(target).convert("L"))[250, 20:900] > 200).all(), "one tile has no border"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "out.png"], "--plot draws a picture's tiles; name the picture with --image"),
        (["--size", "10x10", "--plot", "out.png"], "name the picture with --image"),
    ],
)
def test_wrong_plots(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["info", CHECKPOINT, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
