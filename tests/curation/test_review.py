"""Manual review: the queue of several reviewers, the file of decisions, its recovery after a kill."""

import json

import pytest

from paddle_internvl.curation.decisions import DecisionFile, read_decisions, sample_id
from paddle_internvl.curation.filter import FilterSettings, run_filter
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.review import ReviewQueue
from paddle_internvl.training.mixture import DataError


@pytest.fixture
def flagged(tmp_path):
    """Four flagged samples of a filter."""
    source = tmp_path / "data.jsonl"
    answers = ("Fine.", "Open <ref>one.", "Open <ref>two.", "Open <ref>three.", "Open <ref>four.")
    items = [{"id": number, "question": "What is it?", "answer": answer} for number, answer in enumerate(answers)]
    source.write_text("".join(json.dumps(item) + "\n" for item in items))
    run_filter([FilterSource("data", source, tmp_path)], tmp_path / "out", FilterSettings())
    return tmp_path / "out/flagged.jsonl"


@pytest.fixture
def open_queue():
    """`ReviewQueue`s that are closed at the end, and are closed already where the next one is opened."""
    queues = []

    def start(*arguments, **options) -> ReviewQueue:
        for queue in queues:
            queue.close()
        queues.append(ReviewQueue(*arguments, **options))
        return queues[-1]

    yield start
    queues[-1].close()


def samples(flagged) -> list[str]:
    return [sample_id(json.loads(line)) for line in flagged.read_text().splitlines()]


def decide_shown(queue, reviewer: str, decision: str) -> str | None:
    """Decide the sample that a reviewer is shown; returns the next one."""
    shown = queue.next(reviewer)
    queue.decide(shown, decision, reviewer)
    return queue.next(reviewer, after=shown)


def test_a_review_is_continued(flagged, open_queue):
    first, second, third, fourth = samples(flagged)
    queue = open_queue(flagged)
    assert decide_shown(queue, "ann", "accept") == second
    assert decide_shown(queue, "ann", "reject") == third
    queue = open_queue(flagged)
    assert [queue.next("ann"), queue.next("bob")] == [third, fourth]
    assert queue.progress() == {"total": 4, "decided": 2, "accept": 1, "reject": 1, "conflict": 0}
    lines = [json.loads(line) for line in flagged.with_name("flagged.decisions.jsonl").read_text().splitlines()]
    assert [(line["sample"], line["decision"], line["reviewer"]) for line in lines] == [
        (first, "accept", "ann"),
        (second, "reject", "ann"),
    ]
    assert all(set(line) == {"sample", "decision", "reviewer", "time"} for line in lines)
    for _ in range(2):
        decide_shown(queue, "bob", "accept")
    assert queue.next("ann") is None and queue.progress()["decided"] == 4


def test_reviewers_are_shown_different_samples(flagged, open_queue):
    first, second, third, fourth = samples(flagged)
    queue = open_queue(flagged)
    assert [queue.next("ann"), queue.next("bob"), queue.next("ann")] == [first, second, first]
    assert queue.next("ann", after=first) == third and queue.next("ann", after=third) == fourth
    assert queue.next("ann", after=fourth) == first  # it goes on at the beginning
    for sample in (third, fourth, first):
        queue.decide(sample, "accept", "ann")
    assert queue.next("ann") == second  # the last one, though bob is shown it
    queue.decide(second, "accept", "ann")
    queue.decide(second, "reject", "bob")
    assert queue.progress() == {"total": 4, "decided": 4, "accept": 3, "reject": 0, "conflict": 1}


def test_undo_takes_the_reviewer_s_last_decision_back(flagged, open_queue):
    first, second, third, _ = samples(flagged)
    queue = open_queue(flagged)
    queue.decide(first, "accept", "ann")
    queue.decide(second, "accept", "ann")
    queue.decide(third, "reject", "bob")
    queue = open_queue(flagged)  # also of an earlier run
    assert [queue.undo("ann"), queue.undo("ann"), queue.undo("ann"), queue.undo("cy")] == [second, first, None, None]
    assert queue.progress() == {"total": 4, "decided": 1, "accept": 0, "reject": 1, "conflict": 0}
    queue.decide(first, "reject", "ann")
    queue.decide(first, "accept", "ann")  # a key pressed twice: the first decision stands
    assert queue.progress()["reject"] == 2
    decisions = read_decisions(flagged.with_name("flagged.decisions.jsonl"))
    assert decisions.by_sample == {third: {"bob": "reject"}, first: {"ann": "reject"}}


def test_every_decision_survives_a_kill(flagged, open_queue):
    """The file as it is after each byte of the last line, which a killed process may have left."""
    first, second, third, _ = samples(flagged)
    file = flagged.with_name("flagged.decisions.jsonl")
    queue = open_queue(flagged)
    queue.decide(first, "accept", "änn")
    whole = file.read_bytes()
    queue.decide(second, "accept", "änn")
    line = file.read_bytes()[len(whole) :]
    for size in range(len(line)):
        queue.close()
        file.write_bytes(whole + line[:size])
        assert list(read_decisions(file).by_sample) == [first]  # a filter may read at any time
        queue = open_queue(flagged)
        queue.decide(third, "reject", "änn")
        assert file.read_bytes().startswith(whole + b'{"sample"') and file.read_bytes().count(b"\n") == 2


def test_a_full_disk_stores_no_half_decision(flagged, open_queue, monkeypatch):
    first, second, *_ = samples(flagged)
    queue = open_queue(flagged)
    queue.decide(first, "accept", "ann")
    file = flagged.with_name("flagged.decisions.jsonl")
    before = file.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("os.fsync", full)
        queue.decide(second, "accept", "ann")
    assert file.read_bytes() == before and queue.next("ann") == second and queue.progress()["decided"] == 1


def test_wrong_files_and_values(flagged, open_queue, tmp_path):
    queue = open_queue(flagged)
    with pytest.raises(ValueError, match="open in another review"):
        DecisionFile(flagged.with_name("flagged.decisions.jsonl"))
    with pytest.raises(KeyError):
        queue.decide("data:1:0", "accept", "ann")
    for reviewer in ("", " ", "a\n", "\ud800", "a" * 101):
        with pytest.raises(ValueError, match="reviewer"):
            queue.decide(queue.next("ann"), "accept", reviewer)
    with pytest.raises(ValueError, match="decision 'perhaps'"):
        queue.decide(queue.next("ann"), "perhaps", "ann")
    wrong = tmp_path / "wrong.jsonl"
    for text in ('{"conversations": []}\n', "no JSON\n", '{"dataset": "a", "reasons": []}\n'):
        wrong.write_text(text)
        with pytest.raises(DataError, match="wrong.jsonl, line 1: "):
            ReviewQueue(wrong)
    wrong.write_text('{"sample": "a", "decision": "accept", "reviewer": "ann"}\n')
    with pytest.raises(DataError, match="wrong.jsonl, line 1: .*time"):
        read_decisions(wrong)


def test_decisions_of_changed_data_do_not_count(flagged, open_queue):
    queue = open_queue(flagged)
    decide_shown(queue, "ann", "accept")
    flagged.write_text(flagged.read_text().replace("one", "another"))
    queue = open_queue(flagged)
    assert queue.foreign == 1 and queue.progress()["decided"] == 0 and queue.undo("ann") is None
    assert queue.next("ann") == samples(flagged)[0]


def test_texts_and_media_of_a_sample(open_queue, tmp_path):
    items = (
        {"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image>\nOne"}]},
        {"video": "c.mp4", "question": "Two", "chosen": "x", "rejected": "y", "meta": {"score": 1}},
        {"image": {"path": "a.png"}, "conversations": "none"},
    )
    rows = [{"dataset": "d", "line": number, "reasons": [], "item": item} for number, item in enumerate(items)]
    rows.append({"dataset": "d", "line": 9, "reasons": [{"rule": "not_a_sample"}], "text": "[1"})
    flagged = tmp_path / "flagged.jsonl"
    flagged.write_text("".join(json.dumps(row) + "\n" for row in rows))
    queue = open_queue(flagged, root=tmp_path / "media")
    first, second, third, fourth = map(queue.sample, samples(flagged))
    assert (first.texts, second.texts) == ((("human", "<image>\nOne"),), (
        ("question", "Two"), ("chosen", "x"), ("rejected", "y"), ("meta", '{"score": 1}'),
    ))  # fmt: skip
    assert first.images == (tmp_path / "media/a.png", tmp_path / "media/b.png")
    assert second.videos == (tmp_path / "media/c.mp4",)
    assert third.texts == (("image", '{"path": "a.png"}'), ("conversations", "none")) and third.images == ()
    assert (fourth.line, fourth.reasons, fourth.texts) == (9, ({"rule": "not_a_sample"},), (("text", "[1"),))
