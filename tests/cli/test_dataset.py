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


PACKED = ["dataset", str(GOLDENS / "packing/meta.json"), "--model", str(GOLDENS / "checkpoint"), "--packed", "--json"]


def test_packs_are_upstream_s(capsys):
    flags = "--max_dynamic_patch 6 --max_seq_length 400 --truncation True --seed 0 --max_packed_tokens 640"
    assert main([*PACKED, *flags.split(), "--num_images_expected", "10", "--max_buffer_size", "4"]) == 0
    captured = capsys.readouterr()
    packs = [json.loads(line) for line in captured.out.splitlines()]
    expected = json.loads((GOLDENS / "packing/plain.json").read_text(encoding="utf-8"))["packs"]
    assert [pack["cu_seqlens"] for pack in packs] == [pack["cu_seqlens"] for pack in expected]
    members = [[f"{dataset[-1]}{index:02d}" for dataset, index in pack["samples"]] for pack in packs]
    assert members == [pack["members"] for pack in expected]
    assert [sum(pack["num_tiles"]) for pack in packs] == [sum(pack["image_flags"]) for pack in expected]
    assert all(len(pack["loss_weight"]) == len(pack["labels"]) == pack["cu_seqlens"][-1] for pack in packs)
    assert captured.err.endswith("0 faults: samples that are not in the packs, or not whole\n")


def test_what_is_not_in_the_packs_is_listed(capsys):
    flags = "--max_dynamic_patch 12 --seed 0 --max_packed_tokens 350 --num_images_expected 10"
    assert main([*PACKED, *flags.split()]) == 0
    captured = capsys.readouterr()
    packed = {tuple(name) for line in captured.out.splitlines() for name in json.loads(line)["samples"]}
    *faults, count = captured.err.splitlines()[-6:]
    assert len(packed) == 33 - int(count.split()[0])
    assert any("tokens are more than max_seq_length=350" in fault for fault in faults)
    assert any("more tiles than num_images_expected=10" in fault for fault in faults)
