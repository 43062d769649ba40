"""Shared models in two real processes: equal to the whole, and what becomes of the others when one is killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.cli.main import main
from tests.checkpoints.test_quantization import config_of
from tests.parallel.processes import results, start_ranks
from tests.parallel.test_sharing import config_for
from tests.random_checkpoints import ROOT, TOKENIZER, random_checkpoint

CHECKPOINT = str(TOKENIZER)
SECONDS = 120  # for a process to start on a busy machine


def wait_for(processes) -> list[tuple[int, str, str]]:
    ended = [process.communicate(timeout=SECONDS) for process in processes]
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, ended)]


@pytest.fixture
def ranks():
    begun = []

    def start(*words):
        begun.append(start_ranks(*words))
        return begun[-1]

    yield start
    for process in [process for pair in begun for process in pair]:
        process.kill()
        process.wait()


def test_two_processes_equal_one(tmp_path, ranks):
    """Every backbone, and one rounded to 8 bits; Qwen2's tiny config has 7 heads, so here it has 8."""
    folders = {
        case: random_checkpoint(tmp_path / case, config_for(case, 2))
        for case in ("dynamic_gqa", "biased_v1", "qwen2", "llama", "phi3_su", "phi3_yarn")
    }
    config = config_of("dynamic_gqa")
    config["llm_config"].update(hidden_size=128, intermediate_size=256)
    folders["int8"] = random_checkpoint(tmp_path / "int8", config)
    ended = wait_for(ranks("parity", str(tmp_path / "out.npz"), *map(str, folders.values())))
    assert [code for code, _, _ in ended] == [0, 0], ended[0][2] + ended[1][2]
    found = np.load(tmp_path / "out.npz")
    for case, folder in folders.items():
        expected = results(AutoModel.from_pretrained(str(folder), load_in_8bit=case == "int8"))
        logits = expected.pop("logits")
        assert np.abs(found[f"{case}/logits"] - logits).max() / np.abs(logits).max() < 1e-5
        for name, value in expected.items():
            np.testing.assert_array_equal(found[f"{case}/{name}"], value, err_msg=f"{case}/{name}")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other(hf_folders, ranks, killed):
    pair = ranks("endless", str(hf_folders["llama"]))
    assert pair[0].stdout.readline() == "going\n"
    pair[1].send_signal(signal.SIGTERM)  # as a launcher does to all; it is rank 0 that decides
    assert [pair[0].stdout.readline() for _ in range(2)] == ["going\n"] * 2
    pair[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, error = pair[1 - killed].communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert pair[1 - killed].returncode == 1
    assert f"error: rank {killed} has ended, so rank {1 - killed} of 2 ends too" in error


@pytest.mark.parametrize(
    "words",
    [["chat", CHECKPOINT, "--question", "Hello, who are you?"], ["verify", CHECKPOINT, CHECKPOINT]],
    ids=lambda words: words[0],
)
def test_on_the_command_line_under_the_launcher(tmp_path, capsys, words):
    """The same is printed as by one process, and by rank 0 alone; `verify` compares two processes with one."""
    program = Path(sys.executable).with_name("paddle-internvl")
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, str(program), *words, "--tp", "2"], capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert done.returncode == 0, done.stderr
    if words[0] == "chat":
        assert main(words) == 0
        said = capsys.readouterr().out.strip()
    else:
        said = "stages are within their bounds"
    assert said and said in (tmp_path / "workerlog.0").read_text()
    assert said not in (tmp_path / "workerlog.1").read_text()


def test_a_server_over_two_processes(tmp_path, models_answer):
    """It answers as one process does, several at a time, and ends when it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("paddle-internvl")
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launch, str(program), "serve", CHECKPOINT, "--tp", "2", "--server-port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + SECONDS
        while True:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < until, (tmp_path / "workerlog.0").read_text()
            time.sleep(0.2)
        questions = ["Hello, who are you?", "What can you do?"]
        bodies = [
            {"model": Path(CHECKPOINT).name, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
            for question in questions
        ]
        with ThreadPoolExecutor(2) as pool:
            ask = partial(httpx.post, f"{url}/v1/chat/completions", timeout=60)
            given = [r.json()["choices"][0]["message"]["content"] for r in pool.map(lambda b: ask(json=b), bodies)]
        assert given == [models_answer(question) for question in questions]
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def models_answer():
    """Answers of the bundled checkpoint in one process."""
    model = AutoModel.from_pretrained(CHECKPOINT)
    return lambda question: model.chat_messages([{"role": "user", "content": question}], {"max_new_tokens": 64}).text


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
