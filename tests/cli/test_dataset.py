"""`paddle-internvl dataset`: samples as JSON lines and as a report, with every fault by file and line."""

import json
from pathlib import Path

import pytest

from paddle_internvl.cli.main import main

GOLDENS = Path(__file__).parents[1] / "goldens/training"
REFERENCE = json.loads((GOLDENS / "labels/internvl2_5__internlm2_v25.json").read_text(encoding="utf-8"))["results"]
ITEMS = [json.loads(line) for line in (GOLDENS / "labels/input.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def words(tmp_path):
    """The command on the lines of the reference that have no clip."""
    lines = [item for item in ITEMS if "video" not in item]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(item) for item in lines), encoding="utf-8")
    dataset = {"root": str(GOLDENS / "media"), "annotation": "a.jsonl", "repeat_time": 1}
    (tmp_path / "meta.json").write_text(json.dumps({"ds": dataset}), encoding="utf-8")
    return ["dataset", str(tmp_path / "meta.json"), "--model", str(GOLDENS / "checkpoint"), "--max_dynamic_patch", "6"]


def test_json_lines(words, capsys):
    assert main([*words, "--json", "--use_thumbnail", "True"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == list(range(len(rows))) and len(rows) == 36
    expected = REFERENCE["plain"]["items"]
    by_name = dict(zip((item["id"] for item in ITEMS if "video" not in item), rows))
    for name in ("multi3", "text_1", "single_auto"):
        row = by_name[name]
        assert row["dataset"] == "ds" and row["error"] is None
        assert (row["input_ids"], row["labels"]) == (expected[name]["input_ids"], expected[name]["labels"])
        assert row["position_ids"] == list(range(len(row["input_ids"])))
    assert by_name["multi3"]["num_tiles"] == expected["multi3"]["tiles_per_picture"]
    assert (by_name["text_1"]["num_tiles"], by_name["text_1"]["image_flags"]) == ([], [0])
    faults = {name: row["error"] for name, row in by_name.items() if row["error"]}
    assert faults.keys() == {"too_few_marks", "multi_no_marks", "image_missing_file"}
    assert "a.jsonl:29: 2 pictures but 1 <image> marks" in faults["too_few_marks"]
    assert by_name["too_few_marks"]["input_ids"] is None


def test_report(words, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert main([*words, "--show", "1", "--plot", str(tmp_path / "plot.png")]) == 0
    out = capsys.readouterr().out
    assert "visual tokens]</img>" in out and "⟦A small test picture with soft colours." in out.replace(" ⟧", "⟧")
    cells = next(line for line in out.splitlines() if "│ ds" in line).split("│")
    assert [cell.strip() for cell in cells[2:4]] == ["33", "3"]
    assert "a.jsonl:29: 2 pictures but 1 <image> marks" in out
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_wrong_arguments(words, capsys, tmp_path):
    for wrong, message in (
        (["--use_thumbnail", "yes"], "'yes' is neither True nor False"),
        (["--sampling_method", "first"], "sampling_method='first'; supported: rand, middle"),
        (["--min_num_frame", "9", "--max_num_frame", "2"], "min_num_frame=9, max_num_frame=2"),
        (["--plot", "nowhere/plot.png"], "there is no folder"),
    ):
        try:
            code = main([*words, *wrong])
        except SystemExit as error:
            code = error.code
        assert code == 2 and message in capsys.readouterr().err
    assert main(["dataset", str(tmp_path / "none.json"), *words[2:]]) == 2
    assert "none.json does not exist; give the meta JSON" in capsys.readouterr().err
