"""Answer files: every format gives the same text by index; faults name file and row."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.evaluation.answers import AnswerError, read_answers

ANSWERS = {"3": "None", "v1_7": "A\tB\n\"C\"", "5": "NA", "existence/0": "", "9": "是。"}  # fmt: skip


def write(file, answers):
    if file.suffix == ".json":
        file.write_text(json.dumps(answers), encoding="utf-8")
    elif file.suffix == ".jsonl":
        file.write_text("\n\n".join(json.dumps({"question_id": k, "answer": v}) for k, v in answers.items()))
    elif file.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.active.append(["index", "answer", "prediction"])
        for index, answer in answers.items():
            book.active.append([int(index) if index.isdigit() else index, "reference", answer])
        book.save(file)
    else:
        with open(file, "w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writerows([["index", "answer", "prediction"], *([k, "reference", v] for k, v in answers.items())])


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "tsv", "xlsx"])
def test_answers_stay_text(tmp_path, ending):
    file = tmp_path / f"answers.{ending}"
    write(file, ANSWERS)
    assert read_answers(file) == ANSWERS


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers().map(str), st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"))))
def test_any_text_comes_back(tmp_path_factory, answers):
    for ending in ("json", "tsv"):
        file = tmp_path_factory.getbasetemp() / f"any.{ending}"
        write(file, answers)
        assert read_answers(file) == answers


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.jsonl", '{"index": 1, "answer": "A"}\n{"index": 1, "answer": "B"}\n', ":2: a second answer to index 1"),
        ("a.json", '{"1": "A", "1": "B"}', "a.json: 1: a second answer to index 1"),
        ("a.jsonl", '{"index": 1}\n', "a.jsonl:1: a row has one of index"),
        ("a.tsv", "question\tprediction\nwhat\tA\n", "a.tsv:2: a row has one of index"),
        ("a.jsonl", "{", "a.jsonl:1: not valid JSON"),
        ("a.json", '{"1": ["A"]}', "a.json: 1: an answer is text, not list"),
        ("a.pkl", "", "answers are read from .json"),
    ],
)  # fmt: skip
def test_faults_name_the_row(tmp_path, name, text, place):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnswerError, match=place):
        read_answers(tmp_path / name)
