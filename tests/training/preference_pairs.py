"""The preference pairs of upstream's golden run of MPO."""

from __future__ import annotations

import json
from pathlib import Path

from paddle_internvl.training import PreferenceDataset
from tests.training.goldens import CHECKPOINT, FOLDER, golden

EXPECTED = golden("mpo/internlm2_batch1")
SETTINGS = EXPECTED["settings"]
DATA = {name: SETTINGS[name] for name in ("max_seq_length", "max_dynamic_patch", "use_thumbnail", "conv_style")}
ITEMS = [json.loads(line) for line in (FOLDER / "mpo/pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def write_meta(folder: Path, items: list) -> Path:
    """A meta JSON of one data set with these annotation lines."""
    (folder / "pairs.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    fields = {"root": str(FOLDER / "media"), "annotation": str(folder / "pairs.jsonl"), "repeat_time": 1}
    (folder / "meta.json").write_text(json.dumps({"pairs": fields}))
    return folder / "meta.json"


def golden_items() -> list[dict]:
    """Annotation lines in the order of the golden run."""
    by_id = {item["id"]: item for item in ITEMS}
    return [by_id[name] for name in EXPECTED["shuffled_order"]]


def pairs_of(folder: Path, items: list, checkpoint: Path = CHECKPOINT, **data_arguments) -> PreferenceDataset:
    """The pairs of annotation lines."""
    return PreferenceDataset(write_meta(folder, items), checkpoint, **{**DATA, **data_arguments})
