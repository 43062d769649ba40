"""Host headers of foreign sites (DNS rebinding), and bodies with two lengths (request smuggling)."""

import pytest

from paddle_internvl.serve.request_head import is_local_host
from tests.serve.running import RAW_HEAD
from tests.serve.test_guards import read_all


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:23333", "127.1.2.3", "[::1]:80", "[::1]", "box"]
)
def test_names_of_this_machine(host):
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:23333", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]",
     "", "localhost:80@evil.example", "::1.evil.example", "evil.example."],
)  # fmt: skip
def test_foreign_names(host):
    assert not is_local_host(host)


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics"])
def test_foreign_hosts_are_403_on_loopback(serve, path):
    server = serve()
    response = server.get(path, headers={"host": "evil.example:23333"})
    assert response.status_code == 403 and response.json()["error"]["code"] == "host_not_allowed"
    assert "--allowed-hosts" in response.json()["error"]["message"]
    assert server.get(path, headers={"host": f"localhost:{server.port}"}).status_code == 200


def test_configured_hosts_are_accepted(serve):
    server = serve(allowed_hosts=("chat.example",))
    assert server.get("/v1/models", headers={"host": "chat.example"}).status_code == 200
    assert server.get("/v1/models", headers={"host": "other.example"}).status_code == 403


@pytest.mark.parametrize("head", [RAW_HEAD, b"GET /health HTTP/1.1\r\nHost: localhost\r\n"], ids=["post", "get"])
def test_two_lengths_of_a_body_are_400_and_close_the_connection(serve, head):
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serve().connect() as connection:
        connection.sendall(head + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400") and b"connection: close" in answer.lower()
    assert b"Transfer-Encoding" in answer and answer.count(b"HTTP/1.1") == 1
