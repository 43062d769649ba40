"""Samples of all conversation templates against upstream's `preprocess_*` functions: ids and labels."""

import json
import shutil

import numpy as np
import pytest

from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.training import SFTDataset
from paddle_internvl.training.mixture import DataError
from tests.training.families import FAMILIES, family_config
from tests.training.goldens import CHECKPOINT, FOLDER

ARRAYS = np.load(FOLDER / "families/labels.npz")
CASES = json.loads(str(ARRAYS["about"]))["cases"]
ITEMS = [json.loads(line) for line in (FOLDER / "labels/input.jsonl").read_text(encoding="utf-8").splitlines()]
FORGED = {"literal_context_token", "answer_with_end_mark", "answer_with_role"}  # control tokens, which are text here
OLDER = {"Hermes-2", "internlm2-chat", "phi3-chat"}
# Items from which upstream's templates raise, or leave an empty answer without its end token; here they are samples.
ACCEPTED = {
    **dict.fromkeys(("system_first", "system_first_image", "human_twice", "text_empty_answer"), OLDER),
    "system_first_image_no_mark": OLDER | {"internvl2_5"},
    "text_newline_answer": {"internlm2-chat"},
}
# Upstream learns the question behind the last answer.
LEARNT_QUESTIONS = {("internlm2-chat__llama3", "ends_with_human")}


def reference(case: str):
    """(line, name, row, ids, upstream's mask of learnt tokens, mask of the answers by their marks) of each item."""
    start = 0
    for line, (name, row) in enumerate(CASES[case].items()):
        stop = start + row.get("tokens", 0)
        yield line, name, row, *(ARRAYS[f"{case}.{key}"][start:stop] for key in ("ids", "learnt", "marked"))
        start = stop


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """tokenizer -> a folder with it and a config, without weights."""
    folders = {"internlm2": CHECKPOINT}
    for name, family in FAMILIES.items():
        folders[family.tokenizer] = folder = tmp_path_factory.mktemp(name)
        shutil.copytree(FOLDER / "tokenizers" / family.tokenizer, folder, dirs_exist_ok=True)
        (folder / "config.json").write_text(json.dumps(family_config(name)))
    return folders


def require_learnt_answers(dataset, line: int) -> None:
    """What is learnt of an item are its answers and their end tokens."""
    labels = dataset[line]["labels"]
    learnt = dataset.tokenizer.decode(labels[labels != IGNORED].tolist())
    end = get_conv_template(dataset.arguments.conv_style).stop
    answers = [turn["value"] + end for turn in ITEMS[line]["conversations"] if turn["from"] == "gpt"]
    assert "".join(learnt.split()) == "".join("".join(answers).split())


@pytest.mark.parametrize("case", CASES)
def test_labels_are_upstream_s(case, folders, tmp_path):
    template, _, tokenizer = case.partition("__")
    fields = {"root": str(FOLDER / "media"), "annotation": str(FOLDER / "labels/input.jsonl"), "repeat_time": 1}
    (tmp_path / "meta.json").write_text(json.dumps({"ds": fields}))
    dataset = SFTDataset(
        tmp_path / "meta.json", folders[tokenizer], conv_style=template, max_seq_length=2048, max_dynamic_patch=6,
        min_num_frame=4, max_num_frame=4, sampling_method="middle",
    )  # fmt: skip
    compared = 0
    for line, name, row, ids, learnt, marked in reference(case):
        if name in FORGED or template in ACCEPTED.get(name, ()):
            require_learnt_answers(dataset, line)
            continue
        if "raises" in row:
            with pytest.raises(DataError, match=f"input.jsonl:{line + 1}: "):
                dataset[line]
            continue
        sample = dataset[line]
        assert sample["input_ids"].tolist() == ids.tolist(), name
        # Upstream throws samples away, all labels -100, whose parts do not add up to the whole.
        expected = learnt if learnt.any() and (case, name) not in LEARNT_QUESTIONS else marked
        assert sample["labels"].tolist() == np.where(expected, ids, IGNORED).tolist(), name
        compared += bool(learnt.any())
    assert compared >= 14  # the rest upstream throws away
