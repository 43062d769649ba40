"""`paddle-internvl batch` on the bundled checkpoint, here and by Ray's workers: equal answers, whatever happens."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.scale import batch
from tests.random_checkpoints import ROOT

CHECKPOINT = str(ROOT / "demo/checkpoints/internvl-tiny")
PICTURE = ROOT / "demo/assets/shapes.png"
WAIT = 300  # seconds in which something happens even on a busy machine
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
ROWS = [
    {"id": "first", "prompt": "Describe the image.", "images": ["pictures/shapes.png"]},
    {"prompt": "How many objects are there?", "images": [{"url": "pictures/shapes.png", "max_num": 1}]},
    {"id": "gone", "prompt": "What?", "images": ["nowhere.png"]},
    {"messages": [{"role": "user", "content": "hello"}], "generation": {"max_new_tokens": 3, "ignore_eos": True}},
    "no json",
    {"prompt": "What?", "generation": {"heat": 3}},
    {
        "id": 6,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "generation": {"guided_choice": ["aye", "nay"]},
    },
]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "pictures").mkdir()
    shutil.copy(PICTURE, tmp_path / "pictures")
    return write(tmp_path / "in.jsonl", ROWS)


def write(file: Path, rows: list) -> Path:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n\n" for row in rows))
    return file


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def answer(source, target, *more, workers=0) -> int:
    return main(["batch", str(source), str(target), CHECKPOINT, "--workers", str(workers), "--batch-size", "3", *more])


def test_every_row_is_answered_in_its_place(source, tmp_path, capsys):
    assert answer(source, tmp_path / "out.jsonl", "--max-new-tokens", "64") == 1  # some rows failed
    assert "7 of 7 rows done, 3 failed" in capsys.readouterr().out
    out = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in out] == ["first", 1, "gone", 3, 4, 5, 6]
    errors = {row["id"]: row["error"] for row in out if "error" in row}
    assert errors.keys() == {"gone", 4, 5} and str(tmp_path / "nowhere.png") in errors["gone"]
    assert "no JSON" in errors[4] and "generation setting 'heat' is not known" in errors[5]
    assert out[3]["usage"]["completion_tokens"] == 3 and out[3]["finish_reason"] == "length"
    assert out[6]["text"] in ("aye", "nay") and out[6]["finish_reason"] == "stop"

    from paddle_internvl import pipeline

    with pipeline(CHECKPOINT) as pipe:
        alone = pipe(("Describe the image.", str(PICTURE)), {"max_new_tokens": 64})
    assert out[0]["text"] == alone.text and out[0]["usage"]["prompt_tokens"] == alone.input_token_len


def test_answered_rows_are_not_answered_again(source, tmp_path, capsys, monkeypatch):
    target = tmp_path / "out.jsonl"
    answer(source, target)
    whole = target.read_text()
    monkeypatch.setattr(batch, "BatchWorker", None)  # no worker to ask
    assert answer(source, target) == 1 and "7 of 7 rows done, 3 failed" in capsys.readouterr().out
    monkeypatch.undo()
    lines = whole.splitlines(keepends=True)
    marked = json.dumps({**json.loads(lines[0]), "text": "of an earlier run"}) + "\n"
    target.write_text(marked + lines[1] + lines[2][:20])
    answer(source, target)
    assert target.read_text() == marked + "".join(lines[1:])


BAD = {
    "deep nesting": b"[" * 200_000,
    "half a surrogate as id": b'{"id":"\\ud800","prompt":"\\ud800"}',
    "half a surrogate in a path": b'{"prompt":"a","images":["\\ud800.png"]}',
    "no UTF-8": b'{"id":"\xff","prompt":"a"}',
    "NaN": b'{"id":NaN,"prompt":"a"}',
    "a pipe as picture": b'{"prompt":"a","images":["pipe"]}',
    "a device as clip": b'{"messages":[{"role":"user","content":[{"type":"video","video":"/dev/zero"}]}]}',
    "deep generation": b'{"prompt":"a","generation":' + b"[" * 900 + b"]" * 900 + b"}",
}


def test_a_bad_row_costs_that_row(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = b'{"prompt": "hello", "generation": {"max_new_tokens": 2}}'
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, *BAD.values(), good]))
    assert answer(source, target) == 1 and answer(source, target) == 1
    out = read(target)
    assert len(out) == len(BAD) + 2 and out[0]["text"] == out[-1]["text"]
    failed = {name: row.get("error") for name, row in zip(BAD, out[1:])}
    assert all(failed.values()), failed


def test_a_run_with_another_model_or_other_settings_mixes_no_answers(source, tmp_path, caplog):
    target, copy = tmp_path / "out.jsonl", tmp_path / "copy"
    source = write(source, [ROWS[6], ROWS[4]])
    assert answer(source, target, "--max-new-tokens", "3") == 1
    short = target.read_text()
    target.write_text(short.splitlines(True)[0])  # broken off
    assert answer(source, target, "--max-new-tokens", "20") == 1
    assert "begun with max_new_tokens=3, not 20" in caplog.text
    assert Path(f"{target}.1").read_text() == short.splitlines(True)[0]
    answer(source, fresh := tmp_path / "fresh.jsonl", "--max-new-tokens", "20")
    assert target.read_text() == fresh.read_text() != short
    shutil.copytree(CHECKPOINT, copy)
    words = ["batch", str(source), str(target), str(copy), "--workers", "0", "--max-new-tokens", "20"]
    assert main(words) == 1 and not Path(f"{target}.2").exists()  # the same model elsewhere
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "another": 1}))
    assert main(words) == 1 and "begun with model=" in caplog.text and Path(f"{target}.2").exists()


@needs_ray
def test_workers_answer_the_same_and_one_may_die(source, tmp_path):
    """Two processes of Ray, one of them killed at its work: order, answers and errors are those of one process."""
    alone, target = tmp_path / "alone.jsonl", tmp_path / "out.jsonl"
    # long enough to be at work when one is killed
    long = {"prompt": "hello", "generation": {"max_new_tokens": 400, "ignore_eos": True}}
    source = write(source, [*ROWS, *[long] * 5])
    answer(source, alone)
    words = ["batch", str(source), str(target), CHECKPOINT, "--workers", "2", "--batch-size", "3"]
    run = subprocess.Popen(
        [sys.executable, "-m", "paddle_internvl.cli.main", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        killed = kill_a_worker(run, lambda: target.exists() and target.stat().st_size > 0)
        _, errors = run.communicate(timeout=WAIT)
    finally:
        run.kill()
    assert run.returncode == 1, errors
    assert killed and target.read_text() == alone.read_text()


def kill_a_worker(run: subprocess.Popen, begun) -> bool:
    """Kill -9 one of the actors below a process once it has begun to work."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until and run.poll() is None:
        workers = [p for p in psutil.Process(run.pid).children(recursive=True) if begun() and "MapWorker" in title(p)]
        if workers:
            workers[0].kill()
            return True
        time.sleep(0.02)
    return False


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def test_without_ray(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert answer(source, tmp_path / "out.jsonl", workers=1) == 2
    assert 'this needs Ray, which is not installed: pip install "ray[data,serve]' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--generation", "{"], "--generation { is no JSON"),
        (["--generation", "3"], "--generation 3 is no JSON object"),
        (["--workers", "0", "--ray-address", "auto"], "leave out --ray-address"),
    ],
)
def test_wrong_calls(source, tmp_path, words, message, capsys):
    assert main(["batch", str(source), str(tmp_path / "out"), CHECKPOINT, *words]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["batch", str(tmp_path / "in"), str(tmp_path / "out"), CHECKPOINT, "--workers", "0"]) == 2
    assert str(tmp_path / "in") in capsys.readouterr().err
