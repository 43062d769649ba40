"""Response formats over HTTP: by OpenAI's client on the bundled checkpoint; every spelling on a stand-in."""

import json

import pytest
from pydantic import BaseModel, Field

from paddle_internvl.generation.constraints.formats import ResponseFormat

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TEXT = json.dumps(SCHEMA)


class Shape(BaseModel):
    """A shape of a picture."""

    color: str = Field(max_length=6)
    sides: int = Field(ge=0, le=20)


def test_answers_are_what_the_class_parses(engine_client):
    request = {"model": "tiny", "messages": [{"role": "user", "content": "Which shape?"}], "max_tokens": 200}
    completion = engine_client.chat.completions.parse(**request, response_format=Shape)
    shape = completion.choices[0].message.parsed
    assert isinstance(shape, Shape) and completion.choices[0].finish_reason == "stop"
    with engine_client.chat.completions.stream(**request, response_format=Shape) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == shape
    cut = engine_client.chat.completions.create(
        **request | {"max_tokens": 3}, response_format={"type": "json_schema", "json_schema": {
            "name": "shape", "strict": True, "schema": Shape.model_json_schema()}},
    )  # fmt: skip
    assert cut.choices[0].finish_reason == "length"
    parsed = engine_client.responses.parse(
        model="tiny", input="Which shape?", max_output_tokens=200, text_format=Shape
    ).output_parsed  # fmt: skip
    assert parsed == shape
    choice = engine_client.chat.completions.create(**request, extra_body={"guided_choice": ["circle", "square"]}, n=2)
    assert [c.message.content in ("circle", "square") for c in choice.choices] == [True, True]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, ResponseFormat("json_schema", '{"type": "object"}')),
        ({"guided_json": SCHEMA}, ResponseFormat("json_schema", TEXT)),
        ({"guided_json": TEXT}, ResponseFormat("json_schema", TEXT)),
        ({"response_format": {"type": "regex_schema", "regex_schema": "a+"}}, ResponseFormat("regex", "a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, ResponseFormat("choice", '["a", "b"]')),
        ({"guided_grammar": 'start: "a"'}, ResponseFormat("grammar", 'start: "a"')),
        ({"response_format": {"type": "text"}}, None),
    ],
)
def test_spellings_reach_the_engine(serve, fields, expected):
    server = serve()
    assert server.ask(**fields).status_code == 200
    assert server.engine.asked[0][1].response_format == expected


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format", "has no 'schema'"),
        ({"guided_json": {"items": [[[[]]]] * 5000}}, "guided_json", "more than 4096 values"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_json", "guided_json and guided_regex exclude each other"),
        ({"guided_json": {"uniqueItems": True}}, None, 'Unimplemented keys: ["uniqueItems"]'),
        ({"guided_json": '{"enum": ["\\ud800"]}'}, None, "not supported"),
        ({"guided_choice": ["a"], "ignore_eos": True}, None, "response_format goes with no ignore_eos"),
        ({"guided_choice": ["a"], "chat_template_kwargs": {"enable_thinking": True}}, None, "goes with no thinking"),
    ],
)
def test_refused_formats(serve, fields, param, message):
    response = serve().ask(**fields)
    error = response.json()["error"]
    assert response.status_code == 400 and message in error["message"] and error["param"] == param, error


def test_a_missing_library_is_named(serve, monkeypatch):
    monkeypatch.setattr(
        "paddle_internvl.serve.preparing.compiler_of", lambda *_: (_ for _ in ()).throw(ImportError("needs llguidance"))
    )
    error = serve().ask(guided_choice=["a"]).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "response_format")
