"""The load generator against servers that stall, refuse, break off and send malformed chunks."""

import asyncio
import json
import random
import statistics
import threading
import time
from contextlib import contextmanager

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from paddle_internvl.bench import load
from paddle_internvl.bench.report import percentiles, summary, table
from paddle_internvl.bench.traffic import Request

TIMEOUT = 10
WORDS = ["one", " two", " three"]


def event(content) -> str:
    return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n"


def chunk(**delta) -> str:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


class Scripted:
    """A server that follows the script in each request's body.

    Attributes:
        open: requests in work.
        everyone: requests that a request with 'wait' waits for to be in work.
        keys: authorization headers of requests for the models.
    """

    def __init__(self):
        self.open = self.everyone = 0
        self.keys = []
        routes = [Route("/v1/chat/completions", self.chat, methods=["POST"]), Route("/v1/models", self.models)]
        self.app = Starlette(routes=routes)

    async def models(self, request):
        self.keys.append(request.headers.get("authorization"))
        return JSONResponse({"data": [{"id": "scripted"}]})

    async def chat(self, request):
        script = await request.json()
        if script["what"] == "refuse":
            return JSONResponse({"error": {"message": "full"}}, 429)
        if script["what"] == "malformed":
            return PlainTextResponse("data: {]\n\n")
        return StreamingResponse(self.pieces(script), media_type="text/event-stream")

    async def pieces(self, script):
        self.open += 1
        try:
            yield chunk(role="assistant", content="")  # no token
            await asyncio.sleep(script.get("first", 0))
            while script.get("wait") and self.open < self.everyone:
                await asyncio.sleep(0.01)
            self.everyone = 0 if script.get("wait") else self.everyone
            for i, word in enumerate(WORDS):
                await asyncio.sleep(script.get("between", 0) if i else 0)
                yield chunk(content=word)
                if script["what"] == "break":
                    raise RuntimeError("broken on purpose")
                if script["what"] == "error":
                    yield event({"error": {"message": "out of luck"}})
                    return
            usage = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
            yield event({"choices": [], "usage": usage})
            yield event("[DONE]")
        finally:
            self.open -= 1


@pytest.fixture(scope="module")
def scripted():
    with serving(Scripted()) as (server, url):
        yield server, url


@contextmanager
def serving(server):
    running = uvicorn.Server(uvicorn.Config(server.app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    until = time.monotonic() + TIMEOUT
    while not running.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    yield server, f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(TIMEOUT)


def request(at=0.0, what="answer", kind="text", **script) -> Request:
    return Request(at, kind, json.dumps({"what": what, **script}).encode())


def measure(url, requests, timeout=TIMEOUT, on_outcome=lambda outcome: None) -> list[load.Outcome]:
    async def all_of_it():
        async with load.client(url) as http:
            return await load.run(http, requests, timeout, on_outcome)

    return anyio.run(all_of_it)


def test_times_and_tokens(scripted):
    (outcome,) = measure(scripted[1], [request(first=0.2, between=0.1)])
    assert (outcome.status, outcome.prompt_tokens, outcome.tokens) == (load.OK, 11, 4)
    assert len(outcome.chunks) == len(WORDS) and outcome.chunks[0] >= 0.2
    assert outcome.chunks == sorted(outcome.chunks) and outcome.chunks[-1] >= 0.4
    assert outcome.chunks[-1] <= outcome.ended


def test_the_loop_is_open(scripted):
    server, url = scripted
    server.everyone = 30  # the server answers nobody before all requests are in work
    outcomes = measure(url, [request(0.01 * i, wait=True) for i in range(30)])
    assert [outcome.status for outcome in outcomes] == [load.OK] * 30
    assert [outcome.due for outcome in outcomes] == [0.01 * i for i in range(30)]


def test_a_request_that_is_sent_late_counts_from_its_planned_time(scripted):
    """No coordinated omission: a delay of the sender is part of the times."""
    _, blocked = measure(
        scripted[1], [request(), request(0.3)], on_outcome=lambda outcome: outcome.due or time.sleep(1.0)
    )
    assert blocked.late > 0.5 and blocked.chunks[0] > blocked.late and blocked.ended > blocked.late


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("refuse", "429", "full"),
        ("break", "stream", "RemoteProtocolError"),
        ("error", "stream", "out of luck"),
        ("malformed", "stream", "not a chat chunk"),
    ],
)
def test_failures_have_a_status_and_an_error(scripted, what, status, error):
    bad, good = measure(scripted[1], [request(what=what), request(0.01)])
    assert bad.status == status and error in bad.error and good.status == load.OK


def test_timeouts_and_refused_connections(scripted):
    (slow,) = measure(scripted[1], [request(first=60)], timeout=0.2)
    assert slow.status == "timeout" and slow.ended >= 0.2
    (nobody,) = measure("http://127.0.0.1:9", [request()])
    assert nobody.status == "connection" and "ConnectError" in nobody.error


def test_model_and_key(scripted):
    async def name(url, key=None):
        async with load.client(url, key) as http:
            return await load.served_model(http)

    server, url = scripted
    assert anyio.run(name, f"{url}/v1/", "secret") == "scripted" and server.keys[-1] == "Bearer secret"
    for wrong, message in (
        ("http://127.0.0.1:9", "no server answers"),
        ("http://a:b", "not a URL"),
        (f"{url}/x", "404"),
    ):
        with pytest.raises(ValueError, match=message):
            anyio.run(name, wrong)


def test_percentiles_are_those_of_the_standard_library():
    values = [random.Random(1).expovariate(1) for _ in range(997)]
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    found = percentiles(values)
    assert [found["p50"], found["p95"], found["p99"]] == pytest.approx([cuts[49], cuts[94], cuts[98]], abs=1e-5)
    assert (found["mean"], found["worst"]) == pytest.approx((statistics.fmean(values), max(values)), abs=1e-5)
    slow = percentiles(values, worst=-1)  # small values are bad
    assert [slow["p95"], slow["p99"], slow["worst"]] == pytest.approx([cuts[4], cuts[0], min(values)], abs=1e-5)
    assert percentiles([]) is None


def test_summary_counts_answers_and_errors():
    good = {"chunks": [1.0, 1.5, 2.5], "ended": 3.0, "prompt_tokens": 100, "tokens": 4}
    outcomes = [
        load.Outcome("text", 1.0, **good),
        load.Outcome("picture", 3.0, **good),
        load.Outcome("picture", 4.0, status="429", ended=7.0),
    ]
    figures = summary(outcomes)
    assert (figures["requests"], figures["answered"], figures["errors"]) == (3, 2, {"429": 1})
    assert figures["seconds"] == 10.0 and figures["output_tokens_per_second"] == 0.8
    assert figures["inter_token"]["mean"] == 0.75 and figures["time_to_first_token"]["p99"] == 1.0
    assert figures["by_kind"]["picture"] | {"time_to_first_token": 0} == {
        "requests": 2, "answered": 1, "time_to_first_token": 0,
    }  # fmt: skip
    assert table(figures).row_count == 7 and json.dumps(figures, allow_nan=False)
    none = summary([load.Outcome("text", 0.0, status="timeout", ended=1.0)])
    assert none["time_to_first_token"] is None and table(none).row_count == 6
