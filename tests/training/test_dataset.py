"""SFT samples: equal to those of upstream's own code, and errors that name file and line."""

import json
from pathlib import Path

import numpy as np
import pytest

from paddle_internvl.preprocess.frames import interval_frames
from paddle_internvl.training import SFTDataset
from paddle_internvl.training.mixture import DataError, read_meta

GOLDENS = Path(__file__).parents[1] / "goldens/training"
CHECKPOINT = GOLDENS / "checkpoint"
REFERENCE = json.loads((GOLDENS / "labels/internvl2_5__internlm2_v25.json").read_text(encoding="utf-8"))["results"]
ITEMS = [json.loads(line) for line in (GOLDENS / "labels/input.jsonl").read_text(encoding="utf-8").splitlines()]
LINES = {item["id"]: line for line, item in enumerate(ITEMS)}
FORGED = {"literal_context_token", "answer_with_end_mark", "answer_with_role"}  # control tokens, which are text here
CASES = [(setting, name) for setting, result in REFERENCE.items() for name in result["items"]]


@pytest.fixture
def meta(tmp_path):
    """A function that writes a mixture of one data set, with other fields or annotation lines."""

    def write(lines=None, **fields):
        annotation = GOLDENS / "labels/input.jsonl"
        if lines is not None:
            annotation = tmp_path / "a.jsonl"
            annotation.write_text(
                "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8"
            )
        dataset = {"root": str(GOLDENS / "media"), "annotation": str(annotation), "repeat_time": 1, **fields}
        path = tmp_path / "meta.json"
        path.write_text(json.dumps({"ds": dataset}), encoding="utf-8")
        return path

    return write


def arguments_of(setting):
    settings = REFERENCE[setting]["settings"]
    names = ("max_seq_length", "dynamic_image_size", "use_thumbnail", "max_dynamic_patch", "group_by_length")
    frames = settings["frames"]
    return {name: settings[name] for name in names} | {
        "min_num_frame": frames, "max_num_frame": frames, "sampling_method": "middle",
        "truncation": setting == "truncated",
    }  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The data set of each setting of the reference."""
    path = tmp_path_factory.mktemp("meta") / "meta.json"
    fields = {"root": str(GOLDENS / "media"), "annotation": str(GOLDENS / "labels/input.jsonl"), "repeat_time": 1}
    path.write_text(json.dumps({"ds": fields}), encoding="utf-8")
    return {setting: SFTDataset(path, CHECKPOINT, **arguments_of(setting)) for setting in REFERENCE}


@pytest.mark.parametrize(("setting", "name"), CASES)
def test_samples_are_upstreams(datasets, setting, name):
    expected, dataset = REFERENCE[setting]["items"][name], datasets[setting]
    if name == "system_first_image_no_mark":  # upstream fails; here the first question gets the mark
        assert dataset[LINES[name]]["num_tiles"]
        return
    shortened = setting == "truncated" and name in ("video_folder", "long_text")  # upstream trains on what is left
    if "raises" in expected or shortened:
        with pytest.raises(DataError, match=rf"input.jsonl:{LINES[name] + 1}: "):
            dataset[LINES[name]]
        return
    sample = dataset[LINES[name]]
    assert (sample["dataset"], sample["index"]) == ("ds", LINES[name])
    assert sample["num_tiles"] == expected["tiles_per_picture"]
    assert sample["image_flags"].tolist() == expected["image_flags"]
    assert list(sample["pixel_values"].shape) == expected["pixel_values_shape"]
    means = sample["pixel_values"].reshape(len(sample["pixel_values"]), -1).mean(1)
    np.testing.assert_allclose(means, expected["tile_means"], rtol=0, atol=1e-4)
    if name in FORGED:
        control = dataset.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>"])
        turns = len(ITEMS[LINES[name]]["conversations"]) + 1  # and the system message
        assert [int((sample["input_ids"] == token).sum()) for token in control] == [turns, turns, 0]
        return
    assert sample["input_ids"].tolist() == expected["input_ids"]
    assert sample["labels"].tolist() == expected["labels"]
    arange = expected["position_ids"] == "arange"
    assert sample["position_ids"].tolist() == (
        list(range(len(expected["input_ids"]))) if arange else expected["position_ids"]
    )


FRAMES = json.loads((GOLDENS / "labels/frame_indices.json").read_text())


@pytest.mark.parametrize("row", [row for row in FRAMES if row["sample"] in ("middle", "rand")])
def test_frames_of_a_clip(row):
    number, length = row["num_frames"], row["vlen"]
    if row["sample"] == "middle":
        assert interval_frames(number, length, "middle").tolist() == row["indices"]
        return
    drawn = np.array([interval_frames(number, length, "rand", np.random.default_rng(seed)) for seed in range(200)])
    edges = np.linspace(0, length, min(number, length) + 1).astype(int)
    assert drawn.shape[1] == number and (np.diff(drawn) >= 0).all()
    if length > number and (np.diff(edges) > 1).all():  # every frame of each interval but its last one
        for k, (start, stop) in enumerate(zip(edges, edges[1:])):
            assert set(drawn[:, k]) == set(range(start, stop - 1))


def test_random_choices_are_a_function_of_seed_epoch_and_place(meta):
    path = meta([ITEMS[LINES["video_folder"]], ITEMS[LINES["single_auto"]]], data_augment=True)
    one, other = (SFTDataset(path, CHECKPOINT, min_num_frame=2, max_num_frame=5) for _ in range(2))
    other[1]  # in another order
    for i in range(2):
        np.testing.assert_array_equal(one[i]["pixel_values"], other[i]["pixel_values"])
    first = one[0]["pixel_values"]
    second = one.build(0, epoch=1)["pixel_values"]
    assert first.shape != second.shape or (first != second).any()


def test_jpeg_artefacts_are_for_pictures_alone(meta):
    lines = [ITEMS[LINES["single_auto"]], ITEMS[LINES["video_folder"]], ITEMS[LINES["text_1"]]]
    options = {"min_num_frame": 4, "max_num_frame": 4, "sampling_method": "middle"}
    plain = [sample["pixel_values"] for sample in SFTDataset(meta(lines), CHECKPOINT, **options)]
    augmented = [s["pixel_values"] for s in SFTDataset(meta(lines, data_augment=True), CHECKPOINT, **options)]
    assert [bool((a != b).any()) for a, b in zip(plain, augmented)] == [True, False, False]


@pytest.mark.parametrize(
    ("repeat_time", "lines"),
    [(1, [0, 1, 2, 3, 4]), (0.5, [0, 1]), (2, [0, 1, 2, 3, 4] * 2), (3.0, [0, 1, 2, 3, 4] * 3)],
)
def test_repeat_time(meta, repeat_time, lines):
    (dataset,) = read_meta(meta([{"conversations": []}] * 5, repeat_time=repeat_time))
    assert [annotation.index for annotation in dataset.annotations] == lines


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repeat_time": 1.5}, "repeat_time=1.5 must be a part of 1, or a whole number"),
        ({"repeat_time": 0.01}, "keeps none of 40 samples"),
        ({"repeat_time": -1}, "repeat_time=-1 must be"),
        ({"annotation": "nowhere.jsonl"}, "annotation file nowhere.jsonl does not exist"),
        ({"data_augment": "yes"}, "data_augment='yes' must be true or false"),
        ({"max_dynamic_patch": 0}, "max_dynamic_patch=0 must be a whole number above 0"),
        ({"repeat": 2}, "'repeat' is not known; fields: annotation"),
    ],
)
def test_faults_of_a_meta_json(meta, fields, message):
    with pytest.raises(DataError, match=message):
        read_meta(meta(**fields))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl:2: not valid JSON"),
        ("[1]", "a.jsonl:2: an object with conversations is needed"),
        ({"conversations": []}, "a.jsonl:2: conversations: a list with an answer"),
        ({"conversations": [{"from": "user", "value": "a"}]}, r"conversations\[0\]: from \(system, human, gpt\)"),
        ({"image": 3, "conversations": ITEMS[0]["conversations"]}, "image: a path or a list of paths"),
        ({"image": "p01.png", "video": "vid1/", "conversations": []}, "an image or a video, not both"),
        ({"video": "vid2.gif", "clip": [90, 99], "conversations": ITEMS[0]["conversations"]}, "holds no frame of"),
    ],
)
def test_a_bad_line_is_named(meta, line, message):
    dataset = SFTDataset(meta([ITEMS[LINES["text_1"]], line]), CHECKPOINT)
    assert len(dataset) == 2 and dataset[0]["num_tiles"] == []
    with pytest.raises(DataError, match=message):
        dataset[1]


def test_longer_than_the_maximum_is_an_error(meta):
    dataset = SFTDataset(meta(), CHECKPOINT, max_seq_length=40)
    with pytest.raises(DataError, match="tokens are more than max_seq_length=40; raise it"):
        dataset[LINES["text_4rounds"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_num_frames": 3}, "'min_num_frames' is no data argument; arguments: conv_style"),
        ({"sampling_method": "first"}, "sampling_method='first'; supported: rand, middle"),
        ({"min_num_frame": 9, "max_num_frame": 3}, "min_num_frame=9, max_num_frame=3"),
    ],
)
def test_faults_of_arguments(meta, options, message):
    with pytest.raises(ValueError, match=message):
        SFTDataset(meta(), CHECKPOINT, **options)
