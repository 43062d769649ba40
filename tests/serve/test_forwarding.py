"""The front of replicas, without Ray: guards, forwarding, lost replicas, metrics."""

import json
import re
import socket
import threading
from contextlib import ExitStack, aclosing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from paddle_internvl.engine.request import EngineClosedError
from paddle_internvl.serve import forwarding
from paddle_internvl.serve.forwarding import NoReplicaError, ReplicaLostError
from paddle_internvl.serve.replica import ACCEPTED, Replica
from paddle_internvl.serve.server import listen
from paddle_internvl.serve.settings import Settings
from tests.serve.running import QUESTION, WAIT, FakeEngineThread, Served, events, running, wait_until

STREAM = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
CHAT = "/v1/chat/completions"


class LocalReplicas(forwarding.Replicas):
    """Replicas in this process, which answer in turn.

    Attributes:
        lost, lost_after: requests that lose their replica, each after so many messages.
        none: whether no replica accepts requests.
    """

    def __init__(self, engines, settings):
        self.engines, self.replicas = engines, [Replica(engine, settings) for engine in engines]
        self.scopes, self.lost, self.lost_after, self.none = [], 0, 0, False

    async def answer(self, scope, body):
        if self.none:
            raise NoReplicaError
        replica = self.replicas[len(self.scopes) % len(self.replicas)]
        self.scopes.append(scope)
        sent, losing = 0, self.lost > 0
        self.lost -= losing
        async with aclosing(replica.answer({**scope}, body)) as messages:
            async for message in messages:
                if losing and sent == self.lost_after:
                    raise ReplicaLostError
                if message["type"] != ACCEPTED:
                    yield message
                    sent += 1

    async def running(self):
        return 0 if self.none else len(self.replicas)

    async def pages(self):
        return [await replica.page() for replica in self.replicas]

    def close(self):
        for engine in self.engines:
            engine.close()


@pytest.fixture
def fronted(tiny):
    """(settings of the fake engines, settings) -> a front before two replicas, and these."""
    with ExitStack() as stack:

        def start(engine=None, **settings):
            chosen = Settings(**{"server_port": 0, "served_model_name": "tiny", **settings})
            engines = [FakeEngineThread(tiny, tiny.tokenizer, **(engine or {})) for _ in range(2)]
            replicas = LocalReplicas(engines, Settings(served_model_name="tiny"))
            port = stack.enter_context(listen(chosen))
            server = forwarding.build(replicas, chosen)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True)
            thread.start()
            wait_until(lambda: server.started)
            stack.callback(thread.join, WAIT)
            stack.callback(setattr, server, "should_exit", True)
            return Served(server, replicas, port.getsockname()[1]), replicas

        yield start


def content_of(response: httpx.Response):
    """Status, headers and body of a response, without ids and times."""
    text = re.sub(r'(cmpl-|req-|"created":)[0-9a-f]+', r"\1", response.text)
    skipped = ("date", "x-request-id")
    return response.status_code, {k: v for k, v in response.headers.items() if k not in skipped}, text


def test_answers_are_those_of_a_single_server(tiny, fronted, picture_url):
    front, _ = fronted()
    parts = [{"type": "image_url", "image_url": {"url": picture_url}}, {"type": "text", "text": "What?"}]
    asked = [
        (CHAT, QUESTION),
        (CHAT, {**QUESTION, "max_tokens": 2, "n": 2}),
        (CHAT, {"model": "tiny", "messages": [{"role": "user", "content": parts}]}),
        (CHAT, STREAM),
        ("/v1/completions", {"model": "tiny", "prompt": "a", "stream": True}),
        ("/v1/count_tokens", {"messages": QUESTION["messages"]}),
        (CHAT, {**QUESTION, "model": "other"}),
        (CHAT, {**QUESTION, "tools": [{}]}),
        (CHAT, {**QUESTION, "messages": []}),
        (CHAT, {**QUESTION, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}),
        ("/nowhere", {}),
        ("/v1/models", {}),
    ]
    with running(FakeEngineThread(tiny, tiny.tokenizer)) as single:
        for path, body in asked:
            assert content_of(front.ask(path, body)) == content_of(single.ask(path, body)), (path, body)
        for path in (
            "/v1/models",
            "/v1/models/tiny",
            "/v1/models/x",
            "/version",
            "/health",
            "/openapi.json",
            CHAT,
            "/",
        ):
            assert content_of(front.get(path)) == content_of(single.get(path)), path
        for request in ({"content": b"{"}, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}):
            with front.client() as one, single.client() as other:
                assert content_of(one.post(CHAT, **request)) == content_of(other.post(CHAT, **request))


def test_the_front_guards(fronted):
    front, replicas = fronted(api_keys=("secret",), max_body_bytes=1000, allow_origins=("https://a.example",))
    key = {"Authorization": "Bearer secret"}
    assert front.ask().status_code == 401 and front.get("/metrics").status_code == 401
    with front.client(headers=key) as client:
        assert client.post(CHAT, json={**QUESTION, "user": "x" * 1000}).status_code == 413
        front.gate.draining = True
        assert client.post(CHAT, json=QUESTION).json()["error"]["code"] == "server_closing"
        front.gate.draining = False
        assert replicas.scopes == []  # none of these reached a replica
        answer = client.post(CHAT, json=QUESTION, headers={"Origin": "https://a.example", "X-Request-Id": "mine"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert len(answer.headers.get_list("x-content-type-options")) == 1
    (scope,) = replicas.scopes
    assert b"secret" not in repr(scope).encode() and (b"x-request-id", b"mine") in scope["headers"]


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("body", [QUESTION, STREAM])
def test_replica_lost_before_the_response_is_retried(fronted, after, body):
    front, replicas = fronted()
    replicas.lost, replicas.lost_after = 1, after  # the start of an answer alone is not sent on
    answer = front.ask(CHAT, body)
    assert answer.status_code == 200 and "replica_lost" not in answer.text and len(replicas.scopes) == 2
    replicas.lost, replicas.lost_after = 2, after
    refused = front.ask(CHAT, body)
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "replica_lost"
    assert refused.headers["retry-after"] and len(replicas.scopes) == 4


def test_replica_lost_in_mid_stream_is_an_error_event(fronted):
    front, replicas = fronted()
    replicas.lost, replicas.lost_after = 1, 3
    *begun, last = events(front.ask(CHAT, STREAM))
    assert len(begun) == 2 and all("choices" in json.loads(event) for event in begun)
    assert json.loads(last)["error"]["code"] == "replica_lost" and len(replicas.scopes) == 1
    assert front.ask().status_code == 200


def test_without_a_replica(fronted):
    front, replicas = fronted()
    assert front.get("/ready").json() == {"status": "ready", "replicas": 2}
    replicas.none = True
    refused = front.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_timeout")
    assert (front.get("/ready").status_code, front.get("/health").status_code) == (503, 200)


@pytest.mark.parametrize("body", [QUESTION, STREAM])
def test_a_client_that_leaves_cancels_its_replica(fronted, body):
    front, replicas = fronted(engine={"hold": 2})
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: box\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = front.connect()
    connection.sendall(head.encode() + data)
    wait_until(lambda: sum(engine.running for engine in replicas.engines) == 1)
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    wait_until(lambda: sum(engine.cancelled for engine in replicas.engines) == 1)
    wait_until(lambda: front.gate.in_work == 0)
    assert 'paddle_internvl_requests_total{route="/v1/chat/completions",status="499"} 1.0' in front.get("/metrics").text


def test_replicas_that_close_tell_their_streams(fronted):
    front, replicas = fronted(engine={"hold": 2, "error": EngineClosedError("")})
    with front.client().stream("POST", CHAT, json=STREAM) as answer:
        lines = answer.iter_lines()
        next(lines)
        replicas.close()
        last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_closing"


def test_access_log_has_the_record_of_the_replica(fronted, caplog):
    front, _ = fronted()

    def lines():
        return [line for line in caplog.messages if line.startswith("id=")]

    with caplog.at_level("INFO", logger="paddle_internvl.serve"):
        front.ask(CHAT, QUESTION)
        wait_until(lambda: len(lines()) == 2)  # the replica's, which is not shown where it is another process
    assert all(re.fullmatch(r"id=req-\w+ POST /v1/chat/completions 200 \S+ in=\d+ out=\d+", line) for line in lines())


def test_metrics_are_sums(fronted):
    front, replicas = fronted()
    for _ in range(3):  # one replica answers two of them
        front.ask(CHAT, QUESTION)

    def metrics() -> dict:
        families = text_string_to_metric_families(front.get("/metrics").text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    # A request is counted when its response has been sent, which its client may have read before.
    wait_until(lambda: metrics().get(("paddle_internvl_requests_total", CHAT, "200"), 0) >= 3)
    samples = metrics()
    assert samples["paddle_internvl_requests_total", CHAT, "200"] == 3  # not once more for each replica
    assert samples["paddle_internvl_first_token_seconds_count",] == 3
    assert samples["paddle_internvl_engine_finished_total",] == sum(engine.finished for engine in replicas.engines) == 3
    assert samples["paddle_internvl_engine_blocks_total",] == 16
