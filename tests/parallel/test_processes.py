"""Tensor parallel in two real processes: equal to one process, from Python, on the command line and as a server; and
the end of the others when one is killed."""

import json
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.cli.main import main
from tests.parallel.processes import (
    batch_answers,
    engine_answers,
    free_ports,
    launch,
    launch_environment,
    start_ranks,
)
from tests.random_checkpoints import TOKENIZER

CHECKPOINT = str(TOKENIZER)
QUESTION = "Hello, who are you?"
TIMEOUT = 300  # of what must happen; no test depends on how long it takes


@pytest.fixture(scope="module")
def model():
    """The bundled checkpoint in one process."""
    return AutoModel.from_pretrained(CHECKPOINT)


@dataclass
class Launch:
    """Two launched ranks. `results`: of `processes.answers` on each rank; `url`: of the server that they run then."""

    process: subprocess.Popen
    folder: Path
    results: list[dict]
    url: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Launch:
    """The single launch of this module."""
    folder, (port,) = tmp_path_factory.mktemp("ranks"), free_ports(1)
    script = str(Path(__file__).with_name("processes.py"))
    command = launch(folder, script, "answers", str(folder / "results"), CHECKPOINT, QUESTION, str(port))
    process = subprocess.Popen(
        command, env=launch_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        while not is_ready(url):
            assert process.poll() is None, (folder / "workerlog.0").read_text()
            time.sleep(0.2)
        yield Launch(process, folder, [json.loads((folder / f"results.{rank}").read_text()) for rank in (0, 1)], url)
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "8 bit"])
def test_two_processes_equal_one(launched, model, quantized):
    """Every rank has the answers of a batch; those of an engine's thread are rank 0's alone."""
    whole = AutoModel.from_pretrained(CHECKPOINT, load_in_8bit=True) if quantized else model
    ranks = launched.results
    assert [rank[f"batch {quantized}"] for rank in ranks] == [batch_answers(whole)] * 2
    assert [rank[f"engine {quantized}"] for rank in ranks] == [engine_answers(whole), None]


@pytest.mark.parametrize("command", ["chat", "verify"])
def test_on_the_command_line_under_the_launcher(launched, model, command):
    """Rank 0 alone prints the same as one process; `verify` compares two processes with one."""
    printed, nothing = (rank[command] for rank in launched.results)
    if command == "chat":
        assert printed == model.chat_messages([{"role": "user", "content": QUESTION}]).text
    else:
        assert "stages are within their bounds" in printed
    assert nothing == ""


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other(killed):
    pair = start_ranks("endless")
    try:
        assert [process.stdout.readline() for process in pair] == ["going\n"] * 2
        pair[killed].send_signal(signal.SIGKILL)
        _, error = pair[1 - killed].communicate(timeout=TIMEOUT)
        assert pair[1 - killed].returncode == 1
        assert f"error: rank {killed} has ended, so rank {1 - killed} of 2 ends too" in error
    finally:
        for process in pair:
            process.kill()
            process.wait()


def test_a_server_over_two_processes(launched, model):
    """It answers several requests at a time as one process does; SIGTERM to every rank lets rank 0 end the server."""
    questions = [QUESTION, "What can you do?"]
    bodies = [
        {"model": Path(CHECKPOINT).name, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
        for question in questions
    ]
    with ThreadPoolExecutor(2) as pool:
        ask = partial(httpx.post, f"{launched.url}/v1/chat/completions", timeout=TIMEOUT)
        replies = [r.json()["choices"][0]["message"]["content"] for r in pool.map(lambda b: ask(json=b), bodies)]
    settings = {"max_new_tokens": 64}
    assert replies == [model.chat_messages([{"role": "user", "content": q}], settings).text for q in questions]
    launched.process.terminate()
    launched.process.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT  # the launcher does not wait for the ranks that it sends the signal to
    while "closed" not in (log := (launched.folder / "workerlog.0").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "closed" in log
    assert "Traceback" not in (launched.folder / "workerlog.1").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--tp", "2"],
            "tensor parallel over 2 needs 2 processes, and this is one of 1; start it with `python -m paddle",
        ),
        (["--tp", "5"], "tensor parallel over 5 is not possible for 6 heads, 2 kv heads .* possible: 1, 2$"),
        (["--tp", "2", "--device", "gpu:1"], "every rank has its own card"),
    ],
)
def test_refused(arguments, message, capsys):
    assert main(["chat", CHECKPOINT, "--question", "Hi", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error.strip()) and error.count("\n") == 1
