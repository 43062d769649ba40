"""Preference pairs: upstream's files (goldens/answers.json), what differs from them, counts, bad lines."""

import json
from collections import Counter

import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.curation.pairs import KINDS, build_pairs
from paddle_internvl.curation.responses import PairSettings
from paddle_internvl.training.mixture import DataError
from tests.curation.test_answers import GOLDEN

CORRECTNESS, FORMAT = (f"raw/other_pairs_vqa_{kind}.jsonl" for kind in KINDS)


@pytest.fixture
def responses(tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in GOLDEN["responses"]))
    return file


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("flags", GOLDEN["pairs"])
def test_pairs_as_upstream(responses, tmp_path, flags, capsys):
    out = tmp_path / "out"
    assert main(["curate", "pairs", str(responses), str(out), *flags.split(), "--as-upstream", "--json"]) == 0
    for name, expected in GOLDEN["pairs"][flags].items():
        assert sorted(read(out / name), key=lambda item: json.dumps(sort(item))) == sorted(
            expected, key=lambda item: json.dumps(sort(item))
        ), name
    assert json.loads(capsys.readouterr().out)["other"]["checks"][0] == "vqa_score"
    assert main(["curate", "pairs", str(responses), str(out)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err


def sort(item):
    return dict(sorted(item.items()))


def test_pairs_and_their_counts(responses, tmp_path):
    counts = build_pairs(responses, tmp_path, PairSettings(num_pairs_per_key=4, answer_fix=True))
    assert counts["lines"] == len(GOLDEN["responses"]) == counts["positive"] + counts["negative"] + counts["format"]
    assert (counts["keys"], counts["keys_all_correct"], counts["keys_all_wrong"]) == (6, 1, 1)
    for kind, name in zip(KINDS, (CORRECTNESS, FORMAT)):
        pairs = read(tmp_path / name)
        dropped = sum(counts[f"{kind}/{reason}"] for reason in ("substring", "duplicate", "identical", "over_limit"))
        assert counts[f"{kind}/pairs"] == len(pairs) == counts[f"{kind}/possible"] - dropped
        assert max(Counter(pair["question"] for pair in pairs).values()) <= 4
        assert len({(pair["chosen"], pair["rejected"]) for pair in pairs}) == len(pairs)
    # Upstream drops a chosen "No" beside an unclear response, since "no" is in "none".
    assert any(pair["question"] == "Is it red?" for pair in read(tmp_path / FORMAT))
    # Upstream spells the wrong answers "15" as the ground truth "5".
    assert not any(pair["rejected"].endswith(": 5") for pair in read(tmp_path / CORRECTNESS))


def test_the_choice_of_a_question_s_pairs_does_not_depend_on_other_questions(responses, tmp_path):
    settings = PairSettings(num_pairs_per_key=2, seed=1)
    build_pairs(responses, tmp_path / "all", settings)
    alone = tmp_path / "alone" / "other.jsonl"
    alone.parent.mkdir()
    alone.write_text("".join(json.dumps(i) + "\n" for i in GOLDEN["responses"] if i["question"] == "Which is it?"))
    build_pairs(alone, tmp_path / "one", settings)
    expected = [pair for pair in read(tmp_path / "all" / CORRECTNESS) if pair["question"] == "Which is it?"]
    assert read(tmp_path / "one" / CORRECTNESS) == expected != []


def test_given_verdicts(tmp_path):
    file = tmp_path / "other.jsonl"
    item = {"question": "q", "answer": [1], "response": "a", "is_correct": True}
    file.write_text("\n".join(map(json.dumps, [item, {**item, "response": "b", "is_correct": 0}])))
    build_pairs(file, tmp_path, PairSettings(use_correctness_cache=True))
    assert read(tmp_path / CORRECTNESS) == [{"question": "q", "chosen": "a", "rejected": "b", "answer_gt": "[1]"}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ('{"question": "q", "answer": 1}', "'response' is missing"),
        ('{"question": 1, "answer": 1, "response": ""}', "must be texts"),
        ('{"question": "q", "answer": 1, "response": "", "prompt_version": "fr"}', "prompt_version 'fr'"),
    ],
)
def test_bad_lines(tmp_path, line, reason):
    file = tmp_path / "other.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=f"other.jsonl:2: .*{reason}"):
        build_pairs(file, tmp_path, PairSettings())
    assert build_pairs(file, tmp_path, PairSettings(on_bad_line="skip"))["bad_lines"] == 1
