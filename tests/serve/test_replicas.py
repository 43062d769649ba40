"""`paddle-internvl serve --replicas 2` as processes: equal answers, kill -9 of a replica, clients that leave, SIGTERM.

One server for all of it, since it takes a while to start; the tests run in this order.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.serve.settings import KEYS_VARIABLE
from tests.serve.conftest import CHECKPOINT

pytest.importorskip("ray")
WAIT = 300  # seconds in which something happens even on a busy machine
CHAT = "/v1/chat/completions"
QUESTION = {"model": "internvl-tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
LONG = {**QUESTION, "max_tokens": 1200, "ignore_eos": True}  # all of a test's answers overlap, on a busy machine too
STREAM = {**LONG, "stream": True}
# Processes without code of ours: they log tracebacks when the cluster's service answers late on a busy machine.
RAYS_OWN = re.compile(r"\((ServeController|ProxyActor|raylet|autoscaler)[ )]")


class Front:
    """The server's process, in a process group of its own. lines: of its log."""

    def __init__(self):
        words = [sys.executable, "-m", "paddle_internvl.cli.main", "serve", str(CHECKPOINT), "--replicas", "2"]
        environment = {**os.environ, KEYS_VARIABLE: "secret"}
        self.popen = subprocess.Popen(
            [*words, "--server-port", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        url = self.until(lambda: re.search(r"served on (http://\S+)/v1 by 2 replicas", "".join(self.lines)))[1]
        headers = {"Authorization": "Bearer secret"}
        self.client = httpx.Client(base_url=url, trust_env=False, verify=False, timeout=WAIT, headers=headers)
        self.until(self.ready)

    def _read(self) -> None:
        for line in self.popen.stderr:
            self.lines.append(line)

    def until(self, condition):
        until = time.monotonic() + WAIT
        while time.monotonic() < until and self.popen.poll() is None:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError("it did not happen:\n" + "".join(self.lines[-40:]))

    def ready(self) -> int:
        """How many replicas run; 0 while it does not answer."""
        try:
            return self.client.get("/ready").json().get("replicas", 0)
        except httpx.ConnectError:
            return 0

    def replicas(self) -> list[psutil.Process]:
        below = psutil.Process(self.popen.pid).children(recursive=True)
        return [process for process in below if "ServeReplica" in " ".join(process.cmdline())]

    def metric(self, name: str) -> float:
        return float(re.search(rf"^paddle_internvl_{name} (\S+)$", self.client.get("/metrics").text, re.M)[1])

    def chat(self, body: dict) -> httpx.Response:
        return self.client.post(CHAT, json=body)


@pytest.fixture(scope="module")
def front():
    started = Front()
    yield started
    started.client.close()
    if started.popen.poll() is None:
        os.killpg(started.popen.pid, signal.SIGKILL)
    started.popen.wait()


def test_two_replicas_answer_as_one_model(front, tiny):
    assert httpx.post(front.client.base_url.join(CHAT), json=QUESTION, trust_env=False).status_code == 401
    alone = tiny.chat_messages(QUESTION["messages"], {"max_new_tokens": 8}).text
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(front.chat, [QUESTION] * 16))
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {alone}
    assert front.metric("engine_finished_total") == 16 and len(front.replicas()) == 2
    assert "secret" not in "".join(front.lines)


def test_a_killed_replica_ends_its_streams_only(front):
    begun = []

    def stream(_):
        with front.client.stream("POST", CHAT, json=STREAM) as answer:
            lines = filter(None, answer.iter_lines())
            begun.append(next(lines))
            return list(lines)

    with ThreadPoolExecutor(8) as pool:
        whole, streams = pool.map(front.chat, [LONG] * 4), pool.map(stream, range(4))
        front.until(lambda: len(begun) == 4)
        victim = front.replicas()[0]
        victim.kill()
        victim.wait(WAIT)
        front.until(lambda: front.chat(QUESTION).status_code == 200)  # the service goes on
        assert [answer.status_code for answer in whole] == [200] * 4  # asked again of the other replica
        for *_, last in streams:
            assert last == "data: [DONE]" or json.loads(last[6:])["error"]["code"] == "replica_lost"
    front.until(lambda: front.ready() == 2)  # it is back
    assert victim.pid not in {process.pid for process in front.replicas()}
    assert front.chat(QUESTION).status_code == 200


@pytest.mark.parametrize("body", [LONG, STREAM])
def test_disconnect_cancels(front, body):
    before = front.metric("engine_cancelled_total")
    with (
        pytest.raises(httpx.ReadTimeout),
        front.client.stream(
            "POST", CHAT, json={**body, "max_tokens": 15000}, timeout=httpx.Timeout(WAIT, read=0.5)
        ) as answer,
    ):
        for _ in answer.iter_lines():
            if front.metric("engine_running") == 1:
                raise httpx.ReadTimeout("it runs, and we leave")
    front.until(lambda: front.metric("engine_running") == 0)
    assert front.metric("engine_cancelled_total") == before + 1


def test_sigterm_to_the_whole_group_drains(front):
    """As service managers send it: to Ray's processes, too."""
    below = psutil.Process(front.popen.pid).children(recursive=True)
    with front.client.stream("POST", CHAT, json=STREAM) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.killpg(front.popen.pid, signal.SIGTERM)
        front.until(lambda: "requests in work have 30 s" in "".join(front.lines))
        refused = httpx.post(
            front.client.base_url.join(CHAT), json=QUESTION, trust_env=False, headers=front.client.headers
        )
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "server_closing"
        *_, last = [line for line in lines if line]
    assert last == "data: [DONE]"
    assert front.popen.wait(WAIT) == 0
    _, alive = psutil.wait_procs(below, timeout=WAIT)
    assert not alive
    assert not [line for line in front.lines if "Traceback" in line and not RAYS_OWN.search(line)]


def test_invalid_calls(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(CHECKPOINT), "--replicas", "0"])
    assert "argument --replicas: 0 is below 1" in capsys.readouterr().err
    assert main(["serve", str(CHECKPOINT), "--server-port", "0", "--ray-address", "auto"]) == 2
    assert "give their number by --replicas" in capsys.readouterr().err


def test_without_ray(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["serve", str(CHECKPOINT), "--server-port", "0", "--replicas", "2"]) == 2
    assert 'this needs Ray, which is not installed: pip install "ray[data,serve]' in capsys.readouterr().err
