"""Sampled answers: upstream's prompts, seeds, continuation of an interrupted file, bad lines."""

import json

import pytest

from paddle_internvl.curation.sampling import SamplingSettings, sample_answers
from paddle_internvl.curation.sampling_prompts import INSTRUCTIONS, SHORT_ANSWERS, sampling_prompt
from paddle_internvl.training.mixture import DataError
from tests.curation.test_answers import GOLDEN

QUESTIONS = [
    {"id": 7, "image": "a.png", "question": "How many? Please answer Yes or No.", "answer": 3},
    {"image": ["a.png", "b.png"], "question": "<image><image>\nSame?", "answer": "no"},
    {"question": "Why?", "answer": "so"},
    {"question": "Why?", "answer": "so"},
]


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in QUESTIONS))
    return file


def echo(requests):
    """Answers that show the request."""
    return [f"{files} {seed}" for _, files, seed in requests]


def test_instructions_are_upstream_s():
    assert GOLDEN["instructions"] == INSTRUCTIONS and sorted(SHORT_ANSWERS) == GOLDEN["short_answers"]


def test_prompts():
    long = INSTRUCTIONS["en_v2"]
    assert sampling_prompt("Red?\nPlease answer Yes or No.", "en_v2", 1) == "<image>\n" + long.replace(
        "{question}", "Red?"
    )
    assert sampling_prompt("Is <image>\nred?", "en_v2", 1) == "<image>\n" + long.replace("{question}", "Is red?")
    assert sampling_prompt("<image> or <image>?", "en_v2", 2) == long.replace("{question}", "<image> or <image>?")
    assert sampling_prompt("{question} \\boxed", "en_v2", 0) == long.replace("{question}", "{question} \\boxed")


def test_an_interrupted_file_is_continued(source, tmp_path):
    settings = SamplingSettings("en", num_return_sequences=3, root=tmp_path, batch_size=4)
    whole, target = tmp_path / "whole.jsonl", tmp_path / "some.jsonl"
    assert sample_answers(source, whole, settings, echo) == {"questions": 4, "answers": 12, "sampled": 12}
    data = whole.read_bytes()
    rows = [json.loads(line) for line in data.splitlines()]
    assert rows[0]["id"] == 7 and rows[0]["question_orig"] == QUESTIONS[0]["question"]
    assert rows[3]["response"].startswith(str([f"{tmp_path}/a.png", f"{tmp_path}/b.png"]))
    assert len({row["response"] for row in rows[:9]}) == 9  # every answer has a seed of its own
    for end in (0, 5, data.index(b"\n") + 1, data.index(b"\n", 700), len(data) // 2, len(data)):
        target.write_bytes(data[:end])
        sample_answers(source, target, settings, echo)
        assert target.read_bytes() == data
    with pytest.raises(DataError, match="whole.jsonl:1: another prompt_version"):
        sample_answers(source, whole, SamplingSettings("zh"), echo)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"question": "Why?"}, "answer are needed"),
        ({"question": "Why?", "answer": 1, "video": "a.mp4"}, "clips"),
        ({"question": "Why?", "answer": 1, "image": [1]}, "a path or a list of paths"),
    ],
)
def test_bad_lines(tmp_path, item, reason):
    source = tmp_path / "questions.jsonl"
    source.write_text(json.dumps(QUESTIONS[0]) + "\n" + json.dumps(item))
    with pytest.raises(DataError, match=f"questions.jsonl:2: .*{reason}"):
        sample_answers(source, tmp_path / "out.jsonl", SamplingSettings("en"), echo)
