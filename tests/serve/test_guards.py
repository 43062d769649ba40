"""Guards against untrusted clients: bodies, headers, API keys, CORS, numbers of requests; access log and metrics."""

import base64
import io
import json
import logging
import socket
import threading
from contextlib import suppress

import pytest
from PIL import Image

from paddle_internvl.serve import pages
from paddle_internvl.serve.middleware import ApiKeys
from paddle_internvl.serve.server import listen
from paddle_internvl.serve.settings import Settings
from tests.serve.running import QUESTION, RAW_HEAD, WAIT, raw_post, wait_until

JSON = {"content-type": "application/json"}


@pytest.fixture
def lines():
    """The log's lines."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("paddle_internvl.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def read_all(connection) -> bytes:
    """What comes until the other side closes."""
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    return data


# ------------------------------------------------------------------------------------------------- bodies
@pytest.mark.parametrize("declared", [True, False])
def test_row_07_a_body_is_limited_while_it_is_read(serve, declared):
    server = serve(max_body_bytes=1000)
    chunk = b" " * 600
    length = b"Content-Length: 1000000000\r\n\r\n" if declared else b"Transfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(RAW_HEAD + length)
        if not declared:  # the rest is never sent: the answer does not wait for it
            connection.sendall((b"%x\r\n" % len(chunk) + chunk + b"\r\n") * 2)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413") and b"request_too_large" in answer
    assert server.ask().status_code == 200
    wait_until(lambda: server.gate.in_work == 0)


def test_row_07_a_client_that_still_sends_gets_its_refusal(serve):
    """Not a connection reset: the rest of the body is dropped before the connection is closed."""
    server = serve({"hold": 0}, max_concurrent_requests=1)
    thread = threading.Thread(target=server.ask)
    thread.start()
    wait_until(lambda: server.engine.running == 1)
    body = b" " * (32 << 20)
    with server.connect() as connection:
        connection.sendall(RAW_HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)  # to its end, before the response is read
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 429") and b"queue_full" in answer
    server.engine.go.set()
    thread.join()
    wait_until(lambda: server.gate.bytes == 0)  # the client may have read its answer before the request ends here


def test_row_07_a_small_body_of_many_values_is_refused(serve):
    server = serve(max_json_values=1000)
    with server.client() as client:
        response = client.post("/v1/chat/completions", content=b"[" + b"{}," * 1000 + b"{}]", headers=JSON)
    assert response.status_code == 413 and "1000 JSON values" in response.json()["error"]["message"]


def test_row_07_the_bodies_of_all_requests_are_limited(serve):
    server = serve({"hold": 0}, max_pending_bytes=1000)
    long = [{"role": "user", "content": "a" * 700}]
    thread = threading.Thread(target=lambda: server.ask(messages=long))
    thread.start()
    wait_until(lambda: server.engine.running == 1)
    response = server.ask(messages=long)
    assert response.status_code == 429 and "retry-after" in response.headers
    server.engine.go.set()
    thread.join()
    assert server.ask(messages=long).status_code == 200
    wait_until(lambda: server.gate.bytes == 0)


def test_row_09_a_slow_body_ends_at_408(serve):
    server = serve(body_timeout=0.3)
    with server.connect() as connection:
        connection.sendall(RAW_HEAD + b"Content-Length: 100\r\n\r\n{")
        wait_until(lambda: server.gate.bytes == 1)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer
    wait_until(lambda: server.gate.in_work == 0)


def test_row_09_slow_bodies_are_no_requests_in_work(serve):
    server = serve(max_concurrent_requests=1)
    with server.connect() as connection:
        connection.sendall(RAW_HEAD + b"Content-Length: 100\r\n\r\n{")
        wait_until(lambda: server.gate.bytes == 1)
        assert server.ask().status_code == 200
    wait_until(lambda: server.gate.bytes == 0)


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["new", "kept alive"])
def test_row_09_slow_headers_close_the_connection(serve, first):
    server = serve(header_timeout=0.5)
    with server.connect() as connection:
        connection.sendall(first)
        if first:
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1 << 16)
        stop = threading.Event()

        def drip():
            for byte in b"GET /health HTTP/1.1\r\n" + b"x" * 10000:
                if stop.wait(0.05):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with suppress(ConnectionResetError):  # closed while a byte was on its way
                assert read_all(connection) == b""
        finally:
            stop.set()
            dripping.join()


def test_row_09_an_idle_connection_is_closed(serve):
    server = serve(keep_alive_timeout=1)
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", RAW_HEAD])
def test_row_09_a_connection_that_waits_for_its_request_makes_room(serve, lines, sent):
    server = serve({"hold": 0}, max_connections=2)
    with server.connect() as working, server.connect() as waiting:
        working.sendall(raw_post(QUESTION))
        wait_until(lambda: server.engine.running == 1)
        waiting.sendall(sent)
        wait_until(lambda: len(server.server.server_state.connections) == 2)
        with server.client() as third:
            assert third.get("/health").status_code == 200
            with suppress(ConnectionResetError):
                assert waiting.recv(1) == b""
            assert third.get("/health").status_code == 200 and server.engine.running == 1
        server.engine.go.set()
        assert working.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert any("1 without a request are closed" in line for line in lines)


def test_row_09_the_slowest_upload_makes_room(serve):
    server = serve(max_connections=1)
    with server.connect() as first, server.connect() as second:
        for count, connection in enumerate((first, second), 1):
            connection.sendall(RAW_HEAD + b"Content-Length: 100\r\n\r\n{")
            wait_until(lambda count=count: server.gate.bytes >= count or count == 2)
        with suppress(ConnectionResetError):
            assert first.recv(1) == b""
        wait_until(lambda: server.gate.bytes == 1)


def test_row_09_connections_with_requests_in_work_stay(serve):
    server = serve({"hold": 0}, max_connections=2)
    with server.connect() as first, server.connect() as second:
        for connection in (first, second):
            connection.sendall(raw_post(QUESTION))
        wait_until(lambda: server.engine.running == 2)
        with server.connect() as silent:
            assert silent.recv(1) == b""
        assert server.get("/health").status_code == 200 and server.engine.running == 2
        server.engine.go.set()
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 200") and second.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_row_09_send_timeout_cancels(serve):
    server = serve({"text": "blue square " * 400}, send_timeout=0.3)
    body = {**QUESTION, "stream": True, "n": 8, "logprobs": True, "top_logprobs": 20}
    with server.connect(buffer=4096) as connection:
        connection.sendall(raw_post(body))
        wait_until(lambda: server.engine.cancelled == 1)
    wait_until(lambda: server.gate.in_work == 0)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_row_20_other_content_types_are_415(serve, kind):
    server = serve()
    with server.client() as client:
        headers = {"content-type": kind} if kind else {}
        response = client.post("/v1/chat/completions", content=json.dumps(QUESTION).encode(), headers=headers)
        assert response.status_code == 415 and response.json()["error"]["code"] == "unsupported_media_type"
        headers = {"content-type": "application/json; charset=utf-8"}
        assert client.post("/v1/chat/completions", content=json.dumps(QUESTION), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'"a"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"NaN",
        b'{"model": "tiny", "messages": "\\ud800"}', b'{"model": "\\ud800", "messages": []}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"temperature":1e999}',
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 400 + b"}",
        b'{"model":"tiny","messages":[{"role":"user","content":"a"}],"temperature":' + b"9" * 400 + b"}",
    ],
)  # fmt: skip
def test_row_21_bodies_that_are_no_request_are_400(serve, content):
    server = serve()
    with server.client() as client:
        response = client.post("/v1/chat/completions", content=content, headers=JSON)
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


# ------------------------------------------------------------------------------------------------- fields
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 9), ("n", 0), ("n", 1.5), ("n", "2"), ("n", True), ("top_logprobs", 21), ("top_logprobs", 1),
        ("logprobs", 1), ("stop", ["a"] * 17), ("stop", "a" * 257), ("stop", ""), ("stop", [""]), ("stop", [1]),
        ("temperature", 2.1), ("temperature", -0.1), ("temperature", "1"), ("top_p", 1.1), ("top_p", -1), ("top_k", -2),
        ("min_p", 2), ("repetition_penalty", 0), ("seed", 1 << 63), ("seed", 0.5), ("max_tokens", 0),
        ("max_completion_tokens", -1), ("max_tokens", "9"), ("stream", 1), ("stream_options", {"include_usage": True}),
        ("messages", []), ("messages", {}), ("messages", [{"role": "function", "content": "a"}]),
        ("messages", [{"role": "user"}]), ("messages", [{"role": "user", "content": [{"type": "audio"}]}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a", "detail": "x"}}]}]),
        ("messages", [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "user", "content": "a"}]),
    ],
)  # fmt: skip
def test_row_15_values_out_of_range_are_400_and_named(serve, field, value):
    response = serve().ask(**{field: value})
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"].split(".")[0] == field, error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{}]),
        ("modalities", ["audio"]), ("audio", {}), ("best_of", 2),
        ("echo", True), ("suffix", "a"),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_by_name(serve, field, value):
    server = serve()
    for path, body in (("/v1/chat/completions", None), ("/v1/completions", {"model": "tiny", "prompt": "a"})):
        response = server.ask(path, body, **{field: value})
        error = response.json()["error"]
        assert response.status_code == 400, field
        assert (error["param"], error["code"]) == (field, "unsupported_parameter") and field in error["message"]
    assert not server.engine.asked


# ------------------------------------------------------------------------------------------------- keys, origins
def test_row_16_every_route_but_health_and_the_pages_needs_a_key(serve):
    server = serve(api_keys=("first", "sécond"))
    routes = [
        (method, route.path.replace("{model_id:path}", "tiny"))
        for route in server.server.config.app.routes
        for method in route.methods
    ]
    assert len(routes) >= 10
    with server.client() as client:
        for method, path in [*routes, ("GET", "/nothing"), ("OPTIONS", "/v1/models")]:
            for key in (None, "Bearer wrong", "Bearer", "Bearer first ,", "Basic first", "first", "Bearer firs"):
                headers = {"authorization": key} if key else {}
                response = client.request(method, path, headers=headers)
                if path in ("/health", *pages.FILES):
                    assert response.status_code in (200, 405)
                else:
                    assert response.status_code == 401, (method, path, key)
                    assert "www-authenticate" in response.headers and "first" not in response.text
        for key in (b"Bearer first", "Bearer sécond".encode(), b"bearer first"):
            assert client.get("/v1/models", headers={b"authorization": key}).status_code == 200
        assert (
            client.get("/v1/models", headers={"authorization": "Bearer wrong"}).json()["error"]["code"]
            == "invalid_api_key"
        )


def test_row_16_keys_are_compared_in_constant_time(monkeypatch):
    """Every key is compared, by `compare_digest` and by digests of one length, whatever fits."""
    from paddle_internvl.serve import middleware

    seen = []
    compare = middleware.hmac.compare_digest
    monkeypatch.setattr(middleware.hmac, "compare_digest", lambda a, b: seen.append((len(a), len(b))) or compare(a, b))
    keys = ApiKeys(None, ("a", "bb", "c" * 100), public=())
    for key, accepted in (("a", True), ("c" * 100, True), ("d", False)):
        seen.clear()
        assert keys.accepts(f"Bearer {key}") is accepted
        assert seen == [(32, 32)] * 3


def test_row_18_cors_is_off_unless_asked_for(serve):
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with serve().client() as client:
        for response in (
            client.options("/v1/models", headers=preflight),
            client.get("/v1/models", headers={"origin": "https://a.example"}),
        ):
            assert not [name for name in response.headers if name.startswith("access-control")]
    with serve(allow_origins=("https://a.example",), api_keys=("k",)).client() as client:
        response = client.options("/v1/models", headers=preflight)
        assert response.status_code == 200 and response.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in response.headers
        refused = client.options("/v1/models", headers={**preflight, "origin": "https://b.example"})
        assert "access-control-allow-origin" not in refused.headers
        answer = client.get("/v1/models", headers={"origin": "https://a.example"})
        assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == "https://a.example"


# ------------------------------------------------------------------------------------------------- load
def test_row_13_more_requests_at_once_are_429(serve):
    server = serve({"hold": 0}, max_concurrent_requests=2)
    threads = [threading.Thread(target=server.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.engine.running == 2)
    response = server.ask()
    assert response.status_code == 429 and int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "queue_full"
    assert server.get("/ready").status_code == 200  # what costs nothing is still answered
    server.engine.go.set()
    for thread in threads:
        thread.join()
    assert server.ask().status_code == 200


def test_row_13_preparing_takes_no_more_threads_than_allowed(serve, monkeypatch):
    from paddle_internvl.serve import preparing

    inside, counts, go = [], [], threading.Event()

    def slow(*arguments, **options):
        inside.append(1)
        counts.append(len(inside))
        go.wait(WAIT)
        inside.pop()
        raise ValueError("enough")

    monkeypatch.setattr(preparing, "build_prompt", slow)
    server = serve(media_threads=2)
    threads = [threading.Thread(target=server.ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.gate.in_work == 6 and len(inside) == 2)
    assert server.get("/health").status_code == 200  # the event loop is free meanwhile
    go.set()
    for thread in threads:
        thread.join()
    assert max(counts) == 2 and len(counts) == 6


def test_large_pictures_hold_up_neither_text_nor_small_pictures(serve, monkeypatch, picture_url):
    from paddle_internvl.serve import preparing

    inside, go, build_prompt = [], threading.Event(), preparing.build_prompt

    def slow(model, tokenizer, dialogue, *arguments, **options):
        if dialogue.pixels > 4_000_000:
            inside.append(1)
            go.wait(WAIT)
        return build_prompt(model, tokenizer, dialogue, *arguments, **options)

    monkeypatch.setattr(preparing, "build_prompt", slow)
    data = io.BytesIO()
    Image.new("RGB", (2100, 2000)).save(data, "PNG")
    large = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"

    def ask(server, url):
        content = [{"type": "image_url", "image_url": {"url": url, "max_dynamic_patch": 1}}]
        return server.ask(messages=[{"role": "user", "content": content}]).status_code

    server, statuses = serve(media_threads=2), []
    threads = [threading.Thread(target=lambda: statuses.append(ask(server, large))) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.gate.in_work == 4 and len(inside) == 2)
    assert server.ask().status_code == 200 and ask(server, picture_url) == 200
    assert server.ask("/v1/count_tokens").status_code == 200 and statuses == []
    go.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 4


def test_out_of_memory_while_a_prompt_is_prepared_is_503(serve, monkeypatch):
    from paddle_internvl.serve import preparing

    server = serve()
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "build_prompt", lambda *_, **__: bytearray(1 << 62))
        response = server.ask()
    assert response.status_code == 503 and response.json()["error"]["code"] == "out_of_memory"
    assert int(response.headers["retry-after"]) > 0
    assert server.ask().status_code == 200 and server.get("/ready").status_code == 200


# ------------------------------------------------------------------------------------------------- what is kept
def test_row_27_access_line_has_costs_and_no_content(serve, lines, picture_url):
    server = serve(api_keys=("hidden-key",))
    content = [
        {"type": "image_url", "image_url": {"url": picture_url}}, {"type": "text", "text": "a private question"},
    ]  # fmt: skip
    headers = {"authorization": "Bearer hidden-key", "x-request-id": "mine-1"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    with server.client(headers=headers) as client:
        response = client.post("/v1/chat/completions", json=body)
        assert response.headers["x-request-id"] == "mine-1"
        client.post("/v1/chat/completions", json={**body, "model": "private\nforged line\x1b[31m"})
        client.get("/v1/private%1b%0a?key=hidden-key")
        forged = client.get("/health", headers={"x-request-id": "a b;"})
        assert forged.headers["x-request-id"].startswith("req-")
    usage = response.json()["usage"]
    wait_until(lambda: len(lines) == 4)
    first = lines[0]
    assert first.startswith("id=mine-1 POST /v1/chat/completions 200 0.") and "<image " in first and "kB>" in first
    assert f"in={usage['prompt_tokens']} out={usage['completion_tokens']} " in first
    assert "404" in lines[1] and "error=model_not_found" in lines[1] and "GET - 404" in lines[2]
    for line in lines:
        assert not any(word in line for word in ("private", "circle", "hidden-key", "base64", "forged", "\x1b", "\n"))


def test_row_27_unexpected_errors_quote_no_request(serve, lines):
    server = serve({"fail": 0, "error": KeyError("a private question")})
    response = server.ask()
    assert response.status_code == 500 and "private" not in response.text
    wait_until(lambda: len(lines) == 2)
    assert lines[0].startswith(f"id={response.headers['x-request-id']} KeyError at running.py:")
    assert not any("private" in line for line in lines)


def test_row_21_errors_outside_routes_are_answered_too(serve, lines, monkeypatch):
    from paddle_internvl.serve.middleware import Admission

    async def broken(self, scope, receive, send):
        raise RuntimeError("inner /secret/path")

    server = serve()
    monkeypatch.setattr(Admission, "__call__", broken)
    response = server.ask()
    assert response.status_code == 500 and response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text and response.headers["x-request-id"] in response.text


def test_row_28_metrics(serve):
    server = serve()
    server.ask(messages=[{"role": "user", "content": "a private question"}])
    server.ask(model="private")
    server.get("/private")
    page = server.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    name = "paddle_internvl_requests_total"
    assert values[f'{name}{{route="/v1/chat/completions",status="200"}}'] == "1.0"
    assert values[f'{name}{{route="/v1/chat/completions",status="404"}}'] == "1.0"
    assert values[f'{name}{{route="-",status="404"}}'] == "1.0"
    assert values["paddle_internvl_first_token_seconds_count"] == "1.0"
    assert float(values["paddle_internvl_between_pieces_seconds_count"]) > 1
    assert values["paddle_internvl_engine_finished_total"] == "1.0"
    for part in ("waiting", "running", "blocks_used", "vision_tiles_total", "cancelled_total", "out_of_memory_total"):
        assert f"paddle_internvl_engine_{part}" in values
    assert "private" not in page


def test_small_packets_are_not_delayed():
    """asyncio switches Nagle's delay off for sockets that say they are TCP."""
    with listen(Settings(server_port=0)) as port:
        assert port.proto == socket.IPPROTO_TCP
