"""Fuzzing: no request is answered with a 5xx, and the server keeps answering."""

import base64
import io
import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.serve.app import create_app
from paddle_internvl.serve.schema import ChatRequest
from paddle_internvl.serve.settings import Settings
from tests.serve.running import FakeEngineThread, running

_KEYS = st.sampled_from([*ChatRequest.model_fields, "tools", "response_format", "logit_bias", "presence_penalty", "x"])
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, -(1 << 63), 1e308, "\ud800", "\x00", "<image>", "<IMG_CONTEXT>", "user", "data:,"])
)  # fmt: skip
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | _KEYS, inner, max_size=4),
    max_leaves=12,
)
_URLS = st.text(max_size=30) | st.sampled_from(
    ["", "data:", "data:image/png;base64,", "data:image/png;base64,iVBORw0KGgo=", "file:///etc/passwd", "/etc/passwd",
     "http://127.0.0.1", "http://[::1]:99999/", "http://localhost:22/\x00", "javascript:1", "http://\ud800"]
)  # fmt: skip
_OPTIONS = st.dictionaries(
    st.sampled_from(
        ["detail", "max_dynamic_patch", "min_dynamic_patch", "num_frames", "fps", "bound", "use_thumbnail"]
    ),
    _LEAVES | st.lists(_LEAVES, max_size=3),
    max_size=3,
)
_PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=30)}) | st.builds(
    lambda kind, url, options: {"type": kind, kind: {"url": url, **options}},
    st.sampled_from(["image_url", "video_url", "image", "video", "image_data"]),
    _URLS,
    _OPTIONS,
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool"])},
        optional={"content": st.text(max_size=30) | st.lists(_PARTS | _JSON, max_size=3) | st.none()},
    ),
    max_size=4,
)
_FIELDS = st.dictionaries(_KEYS.filter(lambda key: key not in ("model", "messages")), _JSON, max_size=5)
_SIZES = st.integers(-1, 9) | st.sampled_from([0.5, "1", 10**12])
_VALUES = {  # of the keywords of a JSON Schema
    "type": st.sampled_from(["object", "array", "string", "integer", "number", "null", "any", ["string", "null"]]),
    "enum": st.lists(_LEAVES, max_size=3), "const": _LEAVES, "pattern": st.sampled_from(["a|b", "(a+", "(?=a)", "é*"]),
    "format": st.sampled_from(["date", "uuid", "x"]), "$ref": st.sampled_from(["#", "#/$defs/a", "http://a"]),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "multipleOf"), _SIZES),
}  # fmt: skip
_NAMES = st.text(max_size=4)
_SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional=_VALUES),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]), "properties": st.dictionaries(_NAMES, inner, max_size=3),
            "required": st.lists(_NAMES, max_size=2), "items": inner, "anyOf": st.lists(inner, max_size=2),
            "additionalProperties": inner | st.booleans(), "$defs": st.fixed_dictionaries({"a": inner}), "not": inner,
        },
    ),
    max_leaves=4,
)  # fmt: skip
_CHOICES = ["auto", "required", "none", {"type": "function", "name": "f"}]
WILD = settings(
    max_examples=50, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tiny):
    with running(FakeEngineThread(tiny, tiny.tokenizer, session_len=1024), disable_remote_media=True) as served:
        yield served


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


def post(client, path: str, body) -> int:
    content = json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code < 500, (body, response.text)
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert "Traceback" not in response.text and "site-packages" not in response.text
    return response.status_code


@WILD
@given(messages=_MESSAGES, fields=_FIELDS)
def test_wild_chats_are_no_5xx(client, messages, fields):
    post(client, "/v1/chat/completions", {"model": "tiny", "messages": messages, **fields})


@settings(WILD, max_examples=25)
@given(schema=_SCHEMAS, name=st.sampled_from("ffff ") | _NAMES, choice=st.sampled_from(_CHOICES) | _JSON)
def test_wild_schemas_and_tools_are_no_5xx(client, schema, name, choice):
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    post(client, "/v1/chat/completions", {**chat, "guided_json": schema})
    function = {"name": name, "parameters": schema}
    post(client, "/v1/chat/completions", {**chat, "tools": [{"type": "function", "function": function}]})
    flat = {"tools": [{"type": "function", **function}], "tool_choice": choice, "max_output_tokens": 2}
    post(client, "/v1/responses", {"model": "tiny", "input": "a", **flat})


@WILD
@given(parts=st.lists(_PARTS, max_size=3), fields=_FIELDS)
def test_wild_media_are_no_5xx(client, parts, fields):
    messages = [{"role": "user", "content": parts}]
    post(client, "/v1/chat/completions", {"model": "tiny", "messages": messages, **fields})
    post(client, "/v1/count_tokens", {"messages": messages})


def _encoded(mode: str, size: tuple[int, int], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 100).save(buffer, form)
    return buffer.getvalue()


@settings(WILD, max_examples=100)
@given(
    picture=st.sampled_from([
        _encoded("RGB", (40, 30), "PNG"), _encoded("RGB", (40, 30), "JPEG"), _encoded("CMYK", (40, 30), "JPEG"),
        _encoded("P", (40, 30), "GIF"), _encoded("L", (1, 1), "BMP"), _encoded("LA", (9, 1), "PNG"),
        _encoded("I;16", (40, 30), "PNG"), _encoded("RGBA", (40, 30), "WEBP"), _encoded("1", (1, 150), "PNG"),
    ]),
    cut=st.integers(0, 1000),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=3),
)  # fmt: skip
def test_row_06_damaged_pictures_are_read_or_400(client, picture, cut, changes):
    data = bytearray(picture)
    for position, value in changes:
        data[position % len(data)] = value
    url = "data:image/png;base64," + base64.b64encode(data[: len(data) - cut] or data).decode()
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    status = post(client, "/v1/count_tokens", {"messages": messages})
    assert status in (200, 400, 413) and (status == 200 or cut or changes)


ROUTES = (
    "/v1/chat/completions", "/v1/completions", "/v1/count_tokens", "/v1/responses", "/tokenize", "/detokenize",
    "/generate",
)  # fmt: skip


@WILD
@given(path=st.sampled_from(ROUTES), body=_JSON, prompt=_JSON)
def test_wild_bodies_are_no_5xx(client, path, body, prompt):
    post(client, path, body)
    post(client, "/v1/completions", {"model": "tiny", "prompt": prompt, **(body if isinstance(body, dict) else {})})


@WILD
@given(content=st.binary(max_size=200))
def test_wild_bytes_are_no_5xx(client, content):
    response = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 413)


def test_server_still_answers(server):
    """After all the others in this file."""
    assert server.ask().status_code == 200 and server.engine.running == 0 and server.gate.in_work <= 1


def test_schemathesis_finds_no_5xx(tiny):
    engine = FakeEngineThread(tiny, tiny.tokenizer, session_len=256)
    app = create_app(engine, Settings(served_model_name="tiny", disable_remote_media=True))
    for name in ("ChatRequest", "CompletionRequest"):  # no wild name is the model's
        app.openapi()["components"]["schemas"][name]["properties"]["model"] = {"const": "tiny"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/chat/completions", "/v1/models/{model_id}", "/ready"}
    for operation in operations:

        @settings(WILD, max_examples=10)
        @given(case=operation.as_strategy())
        def check(case):
            response = case.call()
            case.validate_response(response, checks=[schemathesis.checks.not_a_server_error])

        check()
    assert engine.asked  # some of what it made up was a request
