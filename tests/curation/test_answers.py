"""Final answers and answer checks: upstream's results on awkward strings (goldens/answers.json), and what differs."""

import json

import pytest

from paddle_internvl.curation import answer_checks
from paddle_internvl.curation.answer_checks import checks_of, is_correct
from paddle_internvl.curation.final_answers import FormatError, final_answer, with_reference_spelling
from paddle_internvl.evaluation.scorers import vqa_normalization
from tests.random_checkpoints import ROOT

GOLDEN = json.loads((ROOT / "tests/goldens/answers.json").read_text(encoding="utf-8"))


def or_none(function, *arguments):
    try:
        return function(*arguments)
    except FormatError:
        return None


def test_final_answers_are_upstream_s():
    for text, version, expected in GOLDEN["final_answers"]:
        assert or_none(final_answer, text, version) == expected, (text, version)


def test_respelled_answers_are_upstream_s():
    for text, answer, reference, expected in GOLDEN["fixes"]:
        assert or_none(with_reference_spelling, text, answer, reference) == expected, text


def test_normalized_answers_are_upstream_s():
    spelled_alike = {"let's": "let's", "she's": "she's"}
    assert vqa_normalization.SPELLINGS | spelled_alike == GOLDEN["contractions"]
    for text, expected in GOLDEN["normalized"]:
        assert vqa_normalization.normalize(text) == expected, text


@pytest.mark.parametrize("file", GOLDEN["checks"])
def test_checks_as_upstream(file):
    for answer, reference, expected in GOLDEN["checks"][file]:
        assert is_correct(answer, reference, checks_of(file), as_upstream=True) == expected, (answer, reference)


def test_checks_where_upstream_is_wrong():
    rows = GOLDEN["checks"]["other.jsonl"]
    differing = {
        (answer, reference): not expected
        for answer, reference, expected in rows
        if is_correct(answer, reference, checks_of("other")) != expected
    }
    wrong, missed = [("3.5", "3"), ("-5", "5")], [("\\frac12", "1/2"), ("\\sqrt{4}", "2"), ("\\{1,2\\}", "\\{2,1\\}")]
    missed += [("\\sqrt{8}", "2\\sqrt{2}"), ("\\dfrac{3}{4}", "75%"), ("2\\times 3", "6")]
    assert differing == {**dict.fromkeys(wrong, False), **dict.fromkeys(missed, True)}
    anls = {
        (answer, reference)
        for answer, reference, _ in GOLDEN["checks"]["docvqa_x.jsonl"]
        if is_correct(answer, reference, ("anls",)) and answer.lower() != reference.lower()
    }
    assert anls == {("couldnt've", "couldn't've"), ("New York", "new  york"), ("1" * 60, "1" * 59 + "2")}
    assert answer_checks.anls("kitten", "sitting") == pytest.approx(1 - 3 / 7)  # the textbook's example


def test_other_calls_are_errors():
    with pytest.raises(ValueError, match="check 'vqa'; use some of vqa_score"):
        is_correct("a", "b", ("vqa",))
    with pytest.raises(ValueError, match="prompt_version 'fr'"):
        final_answer("", "fr")
    assert final_answer(" red\n", "direct") == "red"
    with pytest.raises(FormatError, match="no final answer"):
        final_answer("\n", "direct")
