"""A judge over stub endpoints, the project's own server and the bundled checkpoint: retries, cache, counts, order."""

import asyncio
import json
import threading

import httpx
import pytest

from paddle_internvl.chat.pipeline import EngineConfig, pipeline
from paddle_internvl.evaluation.chat_checkpoint import ChatCheckpoint
from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint
from paddle_internvl.evaluation.completion import ChatRequestError, EndpointUnavailableError
from paddle_internvl.evaluation.judge import Judge, JudgeCounts
from paddle_internvl.serve.app import create_app
from paddle_internvl.serve.settings import Settings
from tests.random_checkpoints import ROOT
from tests.serve.running import FakeEngineThread

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
URL = "http://judge.test/v1"


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def echo(request: httpx.Request) -> httpx.Response:
    """An answer that repeats the question."""
    return httpx.Response(200, json=body(json.loads(request.content)["messages"][0]["content"]))


def body(text: str | None, **more) -> dict:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage, **more}


class Stub(httpx.MockTransport):
    """An endpoint that gives its responses one after the other, the last one forever. requests: what it got."""

    def __init__(self, *responses):
        self.requests, self.waits = [], []
        left = list(responses)

        def handle(request):
            self.requests.append(request)
            response = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(response, Exception):
                raise response
            return response(request) if callable(response) else response

        super().__init__(handle)

    def endpoint(self, **options) -> ChatEndpoint:
        return ChatEndpoint(**{"url": URL, "model": "m", "transport": self, "sleep": self.waits.append, **options})


class AppTransport(httpx.BaseTransport):
    """An ASGI application without a socket."""

    def __init__(self, app):
        self.app = app

    def handle_request(self, request):
        async def send():
            response = await httpx.ASGITransport(self.app).handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return asyncio.run(send())


def test_failed_requests_are_sent_again_with_longer_waits():
    busy = httpx.Response(429, headers={"retry-after": "7"}, text="slow down")
    stub = Stub(httpx.ReadTimeout("late"), httpx.Response(500), busy, httpx.Response(200, json=body("8")))
    assert stub.endpoint(key="secret").complete(user("a\ud800"), temperature=0.0, seed=None).text == "8"
    assert stub.waits == [1, 2, 7]
    assert json.loads(stub.requests[-1].content) == {"model": "m", "messages": user("a\ud800"), "temperature": 0}
    assert stub.requests[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("response", "error", "requests"),
    [
        (httpx.Response(400, text="too long"), ChatRequestError, 1),
        (httpx.Response(500, text="out of memory"), ChatRequestError, 3),
        (httpx.ReadTimeout("late"), ChatRequestError, 3),
        (httpx.Response(200, text="<html>"), ChatRequestError, 1),
        (httpx.Response(200, json=body(None)), ChatRequestError, 1),
        (httpx.Response(401, text="bad key"), EndpointUnavailableError, 1),
        (httpx.Response(429, text="no quota"), EndpointUnavailableError, 3),
        (httpx.ConnectError("refused"), EndpointUnavailableError, 3),
    ],
)
def test_one_request_without_an_answer_and_an_endpoint_without_answers(response, error, requests):
    stub = Stub(response)
    judge = Judge(stub.endpoint(retries=2))
    with pytest.raises(error):
        judge.ask(user("a"))
    assert len(stub.requests) == requests
    assert judge.counts == JudgeCounts(failed=int(error is ChatRequestError))


def test_a_judge_that_refuses_everything_ends_the_run():
    judge = Judge(Stub(httpx.Response(400, text="temperature is not supported")).endpoint())
    for _ in range(19):
        with pytest.raises(ChatRequestError):
            judge.ask(user("a"))
    with pytest.raises(EndpointUnavailableError, match="none of 20 requests got a reply.*temperature"):
        judge.ask(user("a"))


def test_a_model_that_has_another_name_for_max_tokens():
    refusal = httpx.Response(400, text="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    stub = Stub(refusal, echo)
    judge = Judge(stub.endpoint(), max_tokens=7)
    assert [judge.ask(user(text)) for text in "ab"] == ["a", "b"]
    sent = [json.loads(request.content) for request in stub.requests]
    assert [body.get("max_tokens") for body in sent] == [7, None, None]
    assert [body.get("max_completion_tokens") for body in sent] == [None, 7, 7]


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("https://h/api/chat/completions", "https://h/api/chat/completions"),
    ],
)
def test_urls_and_environment(url, full, monkeypatch):
    monkeypatch.setenv("OPENAI_API_BASE", url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("LOCAL_LLM", "local")
    stub = Stub(httpx.Response(200, json=body("x")))
    endpoint = ChatEndpoint(transport=stub)
    endpoint.complete(user("a"))
    assert endpoint.url == full and endpoint.model == "local"
    assert stub.requests[0].headers["authorization"] == "Bearer k"
    for wrong in ("ftp://h", "h/v1", "http://[::"):
        with pytest.raises(ValueError, match="URL"):
            ChatEndpoint(wrong)
    monkeypatch.delenv("OPENAI_API_BASE")
    with pytest.raises(ValueError, match="OPENAI_API_BASE"):
        ChatEndpoint()


def test_replies_are_cached_by_model_messages_and_temperature(tmp_path):
    cache = tmp_path / "replies/cache.jsonl"

    def run(model: str = "m") -> tuple[Judge, Stub]:
        stub = Stub(
            lambda request: httpx.Response(200, json=body(json.loads(request.content)["messages"][0]["content"]))
        )
        judge = Judge(stub.endpoint(model=model), cache)
        assert [judge.ask(user(text)) for text in ("a", "b", "a")] == ["a", "b", "a"]
        judge.ask(user("a"), temperature=0.5)
        return judge, stub

    judge, stub = run()
    assert judge.counts == JudgeCounts(replies=3, cached=1, prompt_tokens=9, completion_tokens=6)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-5])  # killed while it wrote
    judge, stub = run()
    assert judge.counts == JudgeCounts(replies=1, cached=3, prompt_tokens=3, completion_tokens=2)
    assert cache.read_bytes() == whole
    assert run("another")[0].counts.replies == 3


def test_replies_keep_the_order_of_the_items_and_the_limit_of_requests():
    running, peak, lock = 0, 0, threading.Lock()
    pair = threading.Barrier(2)

    def answer(request):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        pair.wait(60)  # two requests are open at the same time
        with lock:
            running -= 1
        return echo(request)

    judge = Judge(Stub(answer).endpoint(), concurrency=2)
    read = []

    def items():
        for i in range(12):
            read.append(i)
            yield str(i)

    replies = judge.map(lambda text: judge.ask(user(text)), items())
    assert next(replies) == "0" and len(read) <= 4
    assert list(replies) == [str(i) for i in range(1, 12)]
    assert peak == 2


@pytest.fixture(scope="module")
def pipe():
    with pipeline(str(CHECKPOINT), EngineConfig(max_batch_size=4, cache_tokens=4096, session_len=512)) as made:
        yield made


def test_our_server_is_an_endpoint(pipe):
    thread = FakeEngineThread(pipe.model, pipe.model.tokenizer, text="7 of 10", session_len=512)
    app = create_app(thread, Settings(served_model_name="tiny", api_keys=("k",)))
    judge = Judge(ChatEndpoint(URL.replace("judge.test", "localhost"), key="k", transport=AppTransport(app)))
    assert judge.ask(user("hello")) == "7 of 10" and judge.model == "tiny"
    assert judge.counts.prompt_tokens > 0 and judge.counts.completion_tokens > 0
    with pytest.raises(ChatRequestError, match="400"):
        judge.ask(user("hello " * 1000))


def test_a_checkpoint_is_an_endpoint(pipe):
    judge = Judge(ChatCheckpoint(pipe, "tiny"), max_tokens=8)
    texts = ["Describe the image.", "What is red?", "Hello"]
    replies = list(judge.map(lambda text: judge.ask(user(text)), texts))
    assert replies == [response.text for response in pipe(texts, {"max_new_tokens": 8})]
    assert judge.counts.replies == 3
    with pytest.raises(ChatRequestError):
        judge.ask(user("hello " * 1000))
    assert judge.counts.failed == 1


@pytest.mark.parametrize(
    ("models", "content"),
    [
        (httpx.Response(200, json={"data": [{"id": "m", "owned_by": "lmdeploy"}]}), ["image_url", "a <IMAGE_TOKEN> b"]),
        (httpx.Response(200, json={"data": [{"id": "m", "owned_by": "vllm"}]}), ["a ", "image_url", " b"]),
        (httpx.Response(404), ["a ", "image_url", " b"]),
    ],
)
def test_pictures_stand_where_the_server_looks_for_them(models, content):
    stub = Stub(models, httpx.Response(200, json=body("8")))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "a <IMAGE_TOKEN> b"}]}]
    endpoint = stub.endpoint()
    assert [endpoint.complete(messages).text for _ in range(2)] == ["8", "8"]
    listing, *questions = stub.requests
    assert listing.url.path == "/v1/models" and len(questions) == 2
    for question in questions:
        (message,) = json.loads(question.content)["messages"]
        assert [part.get("text", part["type"]) for part in message["content"]] == content
