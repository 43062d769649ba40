"""Data filter: planted faults of every rule, outputs and order, interruption by SIGKILL, several data sets."""

import dataclasses
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.cli.main import main
from paddle_internvl.curation.decisions import sample_id
from paddle_internvl.curation.filter import FilterSettings, run_filter
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.judge_prompts import DOMAINS, score_of
from paddle_internvl.curation.rules import RULES, findings
from paddle_internvl.curation.sample_texts import SampleTexts
from paddle_internvl.evaluation.completion import ChatRequestError, Completion, EndpointUnavailableError
from paddle_internvl.evaluation.judge import Judge
from tests.curation.planted import PLANTS, clean, corpus
from tests.random_checkpoints import ROOT

ALL = FilterSettings(rules={**RULES, "near_duplicate": dataclasses.replace(RULES["near_duplicate"], action="flag")})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (8, 8)).save(folder / "good.png")
    Image.effect_noise((64, 64), 50).save(folder / "noise.png")
    (folder / "truncated.png").write_bytes((folder / "noise.png").read_bytes()[:900])
    (folder / "text.png").write_text("no picture")
    return folder


def written(file: Path, rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for _, line in rows), encoding="utf-8")
    return file


def objects(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_planted_faults(root, tmp_path):
    rows = [row for seed in range(4) for row in corpus(random.Random(seed))]
    source = FilterSource("made", written(tmp_path / "made.jsonl", rows), root)
    counts = run_filter([source], tmp_path / "out", ALL)["made"]
    kept = (tmp_path / "out/kept.jsonl").read_text(encoding="utf-8").splitlines()
    rest = objects(tmp_path / "out/dropped.jsonl") + objects(tmp_path / "out/flagged.jsonl")
    assert (counts["lines"], counts["kept"]) == (len(rows), len(kept))
    assert counts["dropped"] + counts["flagged"] == len(rest)
    reasons = {row["line"]: {reason["rule"] for reason in row["reasons"]} for row in rest}
    missed = [rule for line, (rule, _) in enumerate(rows, 1) if rule and rule not in reasons.get(line, ())]
    assert missed.count("language_mix") <= 1 and set(missed) <= {"language_mix"}
    falsely = [reasons[line] for line, (rule, _) in enumerate(rows, 1) if rule is None and line in reasons]
    assert falsely == []
    missed_lines = [line for number, (rule, line) in enumerate(rows, 1) if number not in reasons]
    assert kept == missed_lines  # unchanged and in order
    for name in ("dropped", "flagged"):
        lines = [row["line"] for row in objects(tmp_path / f"out/{name}.jsonl")]
        assert lines == sorted(lines)
    assert all(row.get("item") == json.loads(rows[row["line"] - 1][1]) for row in rest if "item" in row)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), rule=st.sampled_from([name for name in PLANTS if RULES[name].score]))
def test_each_rule_finds_its_fault_and_passes_clean_samples(seed, rule):
    from paddle_internvl.curation.sample_texts import sample_texts

    rng = random.Random(seed)
    rules = {name: row for name, row in RULES.items() if name != "unreadable_media" and name != "language_mix"}
    item = clean(rng)
    assert findings(sample_texts(item, Path()), rules) == []
    if rule in rules:
        assert rule in [one.rule for one in findings(sample_texts(PLANTS[rule](rng, item), Path()), rules)]


@pytest.mark.parametrize(
    ("rule", "answers"),
    [
        ("sentence_length", ["字" * 151, "word " * 151]),
        ("duplicate_lines", ["a line\nA LINE\na line\na line\na line"]),
        ("broken_markup", ["\\end{align}", "<box>[[1, 2, 3, 4]]", "x</ref>"]),
        ("language_mix", ["Привет всем друзьям, hello to all friends"]),
        ("repetition", ["so " * 20, "哈" * 60]),
    ],
)
def test_rules_find(rule, answers):
    for answer in answers:
        assert rule in [one.rule for one in findings(SampleTexts(("Hi.",), (answer,)), RULES)], answer


@pytest.mark.parametrize(
    "answer",
    [
        "5", "A", "<p>One<p>two", "|a|b|\n|---|---|\n|1|2|\n|1|2|", "```\n" + "x = 1\n" * 3 + "```", "ab\n" * 3,
        "https://a.b/" + "".join(map(str, range(100))), "The sign says 出口, the exit.", "用 Python 的 numpy 数组",
        "<ref>cat</ref><box>[[1, 2, 3, 4]]</box>", "- - - - - - - - - -",
    ],
)  # fmt: skip
def test_rules_pass(answer):
    assert findings(SampleTexts(("Hi.",), (answer,)), RULES) == []


def test_a_killed_run_continues(root, tmp_path):
    """One process forks ten children, each of which kills itself after ten lines; then a run that ends."""
    file = written(tmp_path / "made.jsonl", [row for seed in (1, 2, 3) for row in corpus(random.Random(seed))])
    program = f"""
import itertools, os, signal
from pathlib import Path
from paddle_internvl.curation.filter import FilterSettings, run_filter
from paddle_internvl.curation.filter_sources import FilterSource
source = FilterSource("made", Path({str(file)!r}), Path({str(root)!r}))
settings = FilterSettings(commit_lines=7)
for _ in range(10):
    counter = itertools.count()
    if os.fork() == 0:
        run_filter([source], Path("killed"), settings, False,
                   lambda _: next(counter) == 10 and os.kill(os.getpid(), signal.SIGKILL))
    assert os.wait()[1] == signal.SIGKILL
run_filter([source], Path("killed"), settings)
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env=environment, timeout=300)
    run_filter([FilterSource("made", file, root)], tmp_path / "whole", FilterSettings())
    for name in ("kept.jsonl", "dropped.jsonl", "flagged.jsonl", "report.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "killed").glob(".filter*"))


def test_meta_json_exempt_data_sets_and_duplicates_across_them(root, tmp_path, capsys):
    again = json.dumps({"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "so " * 30}]})
    for name in ("first", "second"):
        written(tmp_path / f"{name}.jsonl", [(None, again.replace("Hi", name)), (None, again)])
    meta = {name: {"root": "", "annotation": f"{name}.jsonl", "repeat_time": 1} for name in ("first", "second")}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    out = tmp_path / "out"
    words = [
        "curate",
        "filter",
        str(tmp_path / "meta.json"),
        str(out),
        "--exempt",
        "first",
        "--plot",
        f"{tmp_path}/a.png",
    ]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["first"] == {"lines": 2, "kept": 2, "dropped": 0, "flagged": 0, "rules": {}}
    assert report["second"]["rules"] == {"duplicate": {"drop": 1}, "repetition": {"flag": 2}}
    assert objects(out / "second/dropped.jsonl")[0]["reasons"][-1]["detail"] == "of first, line 2"
    assert main(words) == 2 and "--overwrite replaces the run" in capsys.readouterr().err
    assert (
        main([*words, "--overwrite", "--drop", "repetition", "--threshold", "repetition=1.5", "--off", "duplicate"])
        == 0
    )
    assert "repetition        drop           2" in capsys.readouterr().out
    assert main([*words, "--off", "spelling"]) == 2
    assert "rule 'spelling'; use some of not_a_sample" in capsys.readouterr().err


def test_a_run_with_other_settings_is_not_continued(root, tmp_path):
    source = FilterSource("made", written(tmp_path / "made.jsonl", corpus(random.Random(0))), root)

    def stop(lines):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_filter([source], tmp_path / "out", ALL, on_progress=stop)
    with pytest.raises(ValueError, match="interrupted run with other settings or inputs"):
        run_filter([source], tmp_path / "out", FilterSettings())


def test_the_documented_rules_are_the_table():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\d.]+) \|", (ROOT / "docs/curation.md").read_text(encoding="utf-8"), re.M
    )
    assert [(name, action, float(value)) for name, action, value in rows] == [
        (name, rule.action, rule.threshold) for name, rule in RULES.items()
    ]


class Scorer:
    """A judge's chat: 2 for loops, 5 for code, no score at 'mute' texts below temperature 1, else 9. asked: prompts."""

    model = "scorer"

    def __init__(self):
        self.asked = []

    def complete(self, messages, temperature, max_tokens):
        (message,) = messages
        self.asked.append(message["content"])
        sample = message["content"].partition("<sample>")[2]
        if "refused" in sample:
            raise ChatRequestError("too long")
        score = 2 if "loop" in sample else 5 if "code" in sample else 9
        reply = "no idea" if "mute" in sample and temperature < 1 else f"Fine.\nScore: {score}"
        return Completion(reply, "stop", 10, 3)


def judged_samples(file: Path) -> FilterSource:
    def sample(text, **more):
        turns = [{"from": "human", "value": "<image>\nHi?" if "image" in more else "Hi?"}]
        return {**more, "conversations": [*turns, {"from": "gpt", "value": text}]}

    items = [
        sample("a fine answer"), sample("a loop"), sample("some code"), sample("refused"), sample("mute but fine"),
        sample("code in a picture", image="good.png"), sample("a looped picture", image="good.png"), sample(" "),
        sample("a fine answer"), sample("a proof", domain="math"), sample("a forever mute loop", domain="none"),
    ]  # fmt: skip
    return FilterSource("made", written(file, [(None, json.dumps(item)) for item in items]), file.parent)


def test_a_judge_scores_quality_of_texts_and_repetition_of_all(root, tmp_path):
    source = dataclasses.replace(judged_samples(tmp_path / "made.jsonl"), root=root)
    chat = Scorer()
    judge = Judge(chat, tmp_path / "replies.jsonl", concurrency=3)
    settings = FilterSettings(judge=judge, scores=True, domains={"made": "code"})
    counts = run_filter([source], tmp_path / "out", settings)["made"]
    dropped = {row["line"]: row["reasons"] for row in objects(tmp_path / "out/dropped.jsonl")}
    assert {line: [reason["rule"] for reason in reasons] for line, reasons in dropped.items()} == {
        2: ["quality", "judged_repetition"], 3: ["quality"], 7: ["judged_repetition"], 8: ["empty_answer"],
        9: ["duplicate"], 11: ["quality", "judged_repetition"],
    }  # fmt: skip
    assert dropped[3][0] == {"rule": "quality", "action": "drop", "score": 5.0, "detail": "Fine.\nScore: 5"}
    (flagged,) = objects(tmp_path / "out/flagged.jsonl")
    assert (flagged["line"], flagged["reasons"][0]["rule"], flagged["reasons"][0]["score"]) == (4, "no_verdict", 2.0)
    assert "too long" in flagged["reasons"][0]["detail"]
    scores = objects(tmp_path / "out/scores.jsonl")
    assert [row["line"] for row in scores] == list(range(1, 12))
    assert (
        scores[0]["output"] == "kept"
        and scores[0]["scores"]["quality"] == 9
        and "Fine" in scores[0]["judge"]["quality"]
    )
    assert "quality" not in scores[5]["scores"] and "judged_repetition" not in scores[8]["scores"]
    questions = [text for text in chat.asked if "Score the quality" in text]
    assert sum(DOMAINS["math"] in text for text in questions) == 1
    assert sum(DOMAINS["code"] in text for text in questions) == len(questions) - 1
    asked = judge.counts
    assert counts["judge"] == vars(asked) and asked.failed == 2 and asked.prompt_tokens == 10 * asked.replies
    again = Judge(silent := Scorer(), tmp_path / "replies.jsonl")
    counts = run_filter([source], tmp_path / "again", dataclasses.replace(settings, judge=again))["made"]
    assert len(silent.asked) == 2 and counts["judge"]["cached"] == asked.replies  # refused ones are asked again
    for name in ("kept", "dropped", "flagged", "scores"):
        assert (tmp_path / f"again/{name}.jsonl").read_bytes() == (tmp_path / f"out/{name}.jsonl").read_bytes()
    exempt = FilterSettings(judge=Judge(Scorer()), exempt=frozenset({"made"}))
    assert "judged_repetition" not in run_filter([source], tmp_path / "exempt", exempt)["made"]["rules"]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Good.\nScore: 8", 8), ("**Score:** 7.5", 7.5), ("score: 3, no: Score: 9/10", 9), ("6", 6), (" 10/10. ", 10),
        ("Score: 11", None), ("fine", None), ("", None), ("A score of ten", None),
    ],
)  # fmt: skip
def test_scores_of_replies(reply, score):
    assert score_of(reply) == score


def test_a_judge_that_is_gone_ends_the_run_which_continues(root, tmp_path):
    source = dataclasses.replace(judged_samples(tmp_path / "made.jsonl"), root=root)
    chat = Scorer()
    run_filter([source], tmp_path / "whole", FilterSettings(judge=Judge(chat)))
    dying = Scorer()
    original = dying.complete

    def complete(messages, **options):
        if len(dying.asked) > 6:
            raise EndpointUnavailableError("no server answers")
        return original(messages, **options)

    dying.complete = complete
    settings = FilterSettings(commit_lines=2, judge=Judge(dying, concurrency=2))
    with pytest.raises(EndpointUnavailableError):
        run_filter([source], tmp_path / "out", settings)
    run_filter([source], tmp_path / "out", FilterSettings(commit_lines=2, judge=Judge(Scorer(), concurrency=2)))
    for name in ("kept", "dropped", "flagged"):
        assert (tmp_path / f"out/{name}.jsonl").read_bytes() == (tmp_path / f"whole/{name}.jsonl").read_bytes()


def test_decisions_of_reviewers_are_applied(root, tmp_path, capsys):
    file = written(
        tmp_path / "made.jsonl", [(None, json.dumps({"question": f"{i}?", "answer": "so " * 30})) for i in range(5)]
    )
    words = ["curate", "filter", str(file)]
    assert main([*words, str(tmp_path / "out")]) == 0
    flagged = objects(tmp_path / "out/flagged.jsonl")
    ids = [sample_id(row) for row in flagged]
    lines = [
        (0, "accept", "a"), (1, "accept", "a"), (1, "reject", "a"), (2, "accept", "a"), (2, "reject", "b"),
        (3, "reject", "a"), (3, "undo", "a"),
    ]  # fmt: skip
    rows = [(None, json.dumps({"sample": ids[k], "decision": d, "reviewer": r, "time": "t"})) for k, d, r in lines]
    stray = json.dumps({"sample": "other:1:0", "decision": "accept", "reviewer": "a", "time": "t"})
    decisions = written(tmp_path / "decisions.jsonl", [*rows, (None, stray)])
    capsys.readouterr()
    assert main([*words, str(tmp_path / "final"), "--decisions", str(decisions)]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("review: accept", "review: reject", "review: conflict"))
    assert "1 decisions are about samples that are not flagged" in out
    assert (tmp_path / "final/kept.jsonl").read_text() == file.read_text().splitlines(keepends=True)[0]
    (dropped,) = objects(tmp_path / "final/dropped.jsonl")
    assert (dropped["line"], dropped["review"]) == (2, "reject")
    assert [(row["line"], row.get("review")) for row in objects(tmp_path / "final/flagged.jsonl")] == [
        (3, "conflict"), (4, None), (5, None)
    ]  # fmt: skip
