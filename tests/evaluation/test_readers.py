"""Readers of benchmark files: VLMEvalKit's TSV files and the files of upstream's scripts."""

import base64
import io
import json

import pytest
from PIL import Image

from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.item import Clip
from paddle_internvl.evaluation.readers import ReadError, default_rules, read_items


def png(size=(2, 2), color="red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


PICTURE = base64.b64encode(png()).decode()


def write_tsv(file, *rows):
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_jsonl(file, *records):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def items_of(name, place, **options):
    return list(read_items(BENCHMARKS[name], place, **options))


def test_tsv_cells_stay_text_and_pictures_are_shared(tmp_path):
    columns = ["index", "question", "hint", "A", "B", "answer", "category", "image", "split"]
    file = write_tsv(
        tmp_path / "MMStar.tsv",
        columns,
        ["0", '"Two\nlines, ""quoted"""', "", "None", "NA", "A", "c", PICTURE, "dev"],
        ["1000000", "q", "nan", "05", "", "", "c", "0", ""],
        ["2", "q", "", "a", "b", "A", "c", "", ""],
        ["3", "q", "", "a", "b", "A", "c", f"['{PICTURE}', '{PICTURE}']", ""],
    )
    items = items_of("MMStar", file)
    assert [item.index for item in items] == [0, 1000000, 3]
    assert items[0].question == 'Two\nlines, "quoted"' and items[0].split == "dev"
    assert items[0].options == {"A": "None", "B": "NA"} and items[1].options == {"A": "05"}
    assert items[1].hint == "nan" and items[1].answer is None and items[1].split == "none"
    assert items[1].pictures == items[0].pictures and len(items[2].pictures) == 2
    assert items[0].columns["category"] == "c" and "image" not in items[0].columns
    assert [item.pictures for item in items_of("MMStar", tmp_path, pictures=False)] == [()] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["question", "image"], ["q", PICTURE]], "there is no column 'index'"),
        ([["index", "question"], ["0", "q"]], "there is no column 'image' or 'image_path'"),
        ([["index", "image"], ["0", PICTURE], ["0", PICTURE]], "row 2: index 0 is also that of row 1"),
        ([["index", "image"], ["0", PICTURE[:-3]]], "row 1: the data URL holds no valid base64"),
        ([["index", "image"], ["0", PICTURE], ["1", "7"]], "row 2: the picture is that of index 7"),
        ([["index", "image"], ["0", PICTURE, "x"]], "row 1: 3 cells, but the header has 2"),
        ([["no", "header"]], "no header"),
    ],
)
def test_faults_of_a_tsv_file_name_file_and_row(tmp_path, rows, message):
    file = write_tsv(tmp_path / "MMStar.tsv", *rows)
    with pytest.raises(ReadError, match=message) as error:
        items_of("MMStar", file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_picture_paths_of_a_tsv_file(tmp_path):
    picture = tmp_path / "images" / "RealWorldQA" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(png())
    file = write_tsv(tmp_path / "RealWorldQA.tsv", ["index", "question", "image_path"], ["x_1", "q", "a.png"])
    (item,) = items_of("RealWorldQA", file)
    assert item.index == "x_1" and item.pictures == (picture,)


def test_jsonl_with_the_answers_of_its_annotation(tmp_path):
    data = tmp_path / "data" / "docvqa"
    picture = data / "images" / "0.png"
    file = write_jsonl(
        data / "val.jsonl",
        {"image": "data/docvqa/images/0.png", "question": "q", "question_id": 7, "answer": "x"},
        {"image": "images/1.png", "question": "q", "question_id": 8, "answer": ["NA"]},
    )
    picture.parent.mkdir()
    picture.write_bytes(png())
    annotation = {"data": [{"questionId": 7, "answers": ["a", "b"]}]}
    (data / "val").mkdir()
    (data / "val" / "val_v1.0.json").write_text(json.dumps(annotation))
    first, second = items_of("DocVQA_VAL", tmp_path / "data")
    assert (first.index, first.answer, first.pictures) == (7, "['a', 'b']", (picture,))
    assert (second.index, second.answer, second.pictures) == (8, "NA", (data / "images" / "1.png",))
    assert default_rules(BENCHMARKS["DocVQA_VAL"], data) == "internvl"
    with pytest.raises(ReadError, match="line 1: no JSON"):
        file.write_text("{")
        items_of("DocVQA_VAL", file)


def test_folders_of_splits_number_their_items(tmp_path):
    record = {"image": "a.jpg", "sent": "left cat", "bbox": [1, 2.5, 3, 4], "width": 10, "height": 20}
    for part in ("refcoco_val", "refcocog_test", "refcoco_train"):
        write_jsonl(tmp_path / f"{part}.jsonl", record, record)
    items = items_of("RefCOCO", tmp_path)
    assert [item.index for item in items] == [
        "refcoco_val/0", "refcoco_val/1", "refcocog_test/0", "refcocog_test/1",
    ]  # fmt: skip
    assert items[0].answer == "[1, 2.5, 3, 4]" and items[0].question == "left cat" and items[0].split == "refcoco_val"
    assert items[0].columns["width"] == "10"
    assert [item.index for item in items_of("RefCOCO_val", tmp_path)] == ["refcoco_val/0", "refcoco_val/1"]
    for part in ("test_human", "test_augmented"):
        write_jsonl(tmp_path / f"{part}.jsonl", {"image": "a.jpg", "question": "q", "question_id": 3, "answer": "4"})
    assert [item.index for item in items_of("ChartQA_TEST", tmp_path)] == ["test_human/3", "test_augmented/3"]
    write_jsonl(tmp_path / "test_human.jsonl", {"image": "a.jpg", "question": "q", "question_id": 2, "answer": "4"})
    items = items_of("ChartQA_TEST", tmp_path)
    assert [(item.index, item.split) for item in items] == [(2, "test_human"), (3, "test_augmented")]


def test_mme_pope_and_science_questions(tmp_path):
    questions = tmp_path / "mme" / "Your_Results"
    questions.mkdir(parents=True)
    (questions / "OCR.txt").write_text("0.jpg\tq0\tYes\n0.jpg\tq1\tNo\n\n")
    items = items_of("MME", tmp_path / "mme")
    assert [(item.index, item.answer, item.category) for item in items] == [
        ("OCR/0", "Yes", "OCR"), ("OCR/1", "No", "OCR"),
    ]  # fmt: skip
    rows = [
        {"question_id": i, "image": "a.jpg", "text": "q", "category": c} for i, c in enumerate(["random", "popular"])
    ]
    file = write_jsonl(tmp_path / "pope" / "llava_pope_test.jsonl", *rows)
    for category in ("random", "popular"):
        write_jsonl(tmp_path / "pope" / "coco" / f"coco_pope_{category}.json", {"label": category})
    assert [item.answer for item in items_of("POPE", file)] == ["random", "popular"]
    file = write_jsonl(
        tmp_path / "s.jsonl", {"image": "a", "question": "q", "hint": "h", "choices": ["x"], "answer": 0}
    )
    (item,) = items_of("ScienceQA_TEST", file)
    assert (item.index, item.answer, item.options, item.hint) == (0, "A", {"A": "x"}, "h")


def test_mvbench_json_names_the_kinds_of_media(tmp_path):
    record = {"video": "v", "question": "q", "candidates": ["x", "y"], "answer": "y", "start": 1, "end": 2.5}
    for stem in ("episodic_reasoning", "fine_grained_pose"):
        (tmp_path / "json").mkdir(exist_ok=True)
        (tmp_path / "json" / f"{stem}.json").write_text(json.dumps([record]))
    pose, episode = items_of("MVBench", tmp_path)
    video = tmp_path / "video"
    assert pose.index == "Fine-grained Pose/0" and pose.clip == Clip(video / "nturgbd" / "v")
    assert episode.clip == Clip(video / "tvqa" / "frames_fps3_hq" / "v", 1, 2.5, 3.0)
    assert episode.options == {"A": "x", "B": "y"} and episode.answer == "y"
    tsv = write_tsv(
        tmp_path / "MVBench.tsv",
        [
            "task_type",
            "prefix",
            "data_type",
            "bound",
            "start",
            "end",
            "video",
            "question",
            "answer",
            "candidates",
            "index",
        ],
        ["T", "video/a/", "frame", "True", "1.0", "2.5", "v", "q", "y", "['x', 'y']", "0"],
    )
    (item,) = items_of("MVBench_8frame", tsv)
    assert item.index == 0 and item.options == episode.options and item.category == "T"
    assert item.clip == Clip(tmp_path / "video" / "a" / "v", 1.0, 2.5, 3.0)


def test_pages_and_captions(tmp_path):
    record = {"questionId": 1, "question": "q", "answers": ["a", "b"], "page_ids": ["p1", "p2"]}
    (tmp_path / "val.json").write_text(json.dumps({"data": [record]}))
    (item,) = items_of("MPDocVQA_VAL", tmp_path)
    assert item.answer == "['a', 'b']" and [path.name for path in item.pictures] == ["p1.jpg", "p2.jpg"]
    (tmp_path / "coco_karpathy_test.json").write_text(json.dumps([{"image": "val2014/COCO_val2014_000000000042.jpg"}]))
    truth = {"annotations": [{"image_id": 42, "caption": "one"}, {"image_id": 42, "caption": "two"}]}
    (tmp_path / "coco_karpathy_test_gt.json").write_text(json.dumps(truth))
    (item,) = items_of("COCO_VAL", tmp_path)
    assert item.index == 42 and item.answer == "['one', 'two']"


def test_parquet_of_the_hub(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    record = {
        "id": "validation_Art_1", "question": "q <image 1>", "options": "['x ', 'None']", "answer": "B",
        "question_type": "multiple-choice", "image_1": {"bytes": png(), "path": "1.png"}, "image_2": None,
    }  # fmt: skip
    (tmp_path / "Art").mkdir()
    write_table(pyarrow.Table.from_pylist([record]), tmp_path / "Art" / "validation-00000.parquet")
    write_table(pyarrow.Table.from_pylist([record]), tmp_path / "Art" / "test-00000.parquet")
    (item,) = items_of("MMMU_DEV_VAL", tmp_path)
    assert (item.index, item.options, item.category) == ("validation_Art_1", {"A": "x", "B": "None"}, "Art")
    assert len(item.pictures) == 1 and item.columns["question_type"] == "multiple-choice"
