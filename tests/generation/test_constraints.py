"""Constrained decoding without a model: formats, token masks of every kind of tokenizer, and what is refused."""

import json

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paddlenlp.transformers import AutoTokenizer

from paddle_internvl.generation.config import GenerationConfig, generation_config
from paddle_internvl.generation.constraints.compiler import ConstraintError, compiler_of
from paddle_internvl.generation.constraints.formats import ResponseFormat
from paddle_internvl.generation.constraints.token_masks import TokenMasks
from tests.generation.schemas import SCHEMAS, random_answer
from tests.random_checkpoints import TOKENIZER
from tests.tokenizers.vocabularies import KINDS, corpus

ANY = {"type": "json_object"}


def json_schema(schema) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folders = {kind: write(tmp_path_factory.mktemp(kind)) for kind, write in KINDS.items()} | {"internlm2": TOKENIZER}
    return {kind: AutoTokenizer.from_pretrained(str(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="module", params=["internlm2", *KINDS])
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def compiler(tokenizer):
    return compiler_of(tokenizer, len(tokenizer) + 23)  # a model's embedding has more rows


def masks_of(tokenizer, response_format, **options) -> TokenMasks:
    grammar = compiler(tokenizer).compile(GenerationConfig(response_format=response_format).response_format)
    return TokenMasks(grammar, (tokenizer.eos_token_id,), **options)


def spelt(tokenizer, response_format, text: str) -> bool:
    """Whether the masks allow the tokens of a text, and then the end."""
    masks = masks_of(tokenizer, response_format)
    for token in tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)):
        if masks.mask()[token] != 0:
            return False
        masks.advance(token)
    return bool(masks.mask()[tokenizer.eos_token_id] == 0)


def test_bytes_of_tokens_are_the_text_of_ids(tokenizer):
    vocabulary = compiler(tokenizer).vocabulary
    for line in corpus(())[:400]:
        ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(line, split_special_tokens=True))
        text = vocabulary.text(ids, vocabulary.special, vocabulary.drops_blank)
        decoded, texts = tokenizer.decode(ids), (text, tokenizer.clean_up_tokenization(text))
        if vocabulary.drops_blank:  # Yi's leaves out two of them
            decoded, texts = decoded.lstrip(" "), [text.lstrip(" ") for text in texts]
        assert decoded in texts, line
    for token, i in tokenizer.added_tokens_encoder.items():
        assert i in vocabulary.special and vocabulary.tokens[i] == token.encode()
    assert vocabulary.tokens[len(tokenizer) :] == [b""] * 23


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_finished_answers_parse_and_validate(tokenizer, schema, seed):
    vocabulary, ends = compiler(tokenizer).vocabulary, (tokenizer.eos_token_id,)
    try:
        masks = masks_of(tokenizer, json_schema(schema))
    except ConstraintError as error:
        assert "nsatisfiable" in str(error)
        return
    ids, finished = random_answer(masks, vocabulary.tokens, ends, seed)
    if finished:
        answer = json.loads(vocabulary.text(ids, vocabulary.special, vocabulary.drops_blank))
        jsonschema.Draft202012Validator(schema).validate(answer)


def test_texts_that_formats_allow(tokenizer):
    schema = {"type": "object", "properties": {"wörld": {"type": "integer"}}, "required": ["wörld"]}
    assert spelt(tokenizer, json_schema(schema), '{"wörld": 12}') and spelt(tokenizer, ANY, '{"a":\n  [1.5, "x"]}')
    assert not spelt(tokenizer, json_schema(schema), '{"wörld": "12"}') and not spelt(tokenizer, ANY, "[1]")
    digits = {"type": "regex_schema", "regex_schema": r"\d{2}|図+"}
    assert spelt(tokenizer, digits, "12") and spelt(tokenizer, digits, "図図") and not spelt(tokenizer, digits, "1")
    for text in ("yes", 'no "way"', "是", "yes!"):
        assert spelt(
            tokenizer, generation_config(guided_choice=["yes", 'no "way"', "是", "yes!"]).response_format, text
        )
    grammar = {"structured_outputs": {"grammar": 'start: pair ("," pair)*\npair: /[a-z]+/ "=" /[0-9]+/'}}
    assert spelt(tokenizer, generation_config(grammar).response_format, "a=1,bc=23")
    gbnf = {"guided_grammar": 'root ::= "a" [0-9]+'}
    assert spelt(tokenizer, generation_config(gbnf).response_format, "a12")
    # A blank that the format itself begins with belongs to the text.
    assert compiler(tokenizer).compile(ResponseFormat("regex", " ?a")).drops_blank is False


def test_spellings_of_formats():
    class Model:
        @staticmethod
        def model_json_schema():
            return {"type": "integer"}

    integer = ResponseFormat("json_schema", '{"type": "integer"}')
    for given_settings in (
        {"response_format": json_schema({"type": "integer"})}, {"response_format": Model}, {"guided_json": Model},
        {"guided_json": '{"type": "integer"}'}, {"structured_outputs": {"json": {"type": "integer"}, "regex": None}},
    ):  # fmt: skip
        assert generation_config(given_settings).response_format == integer
    config = generation_config(regex_schema="a+", response_format={"type": "text"})
    assert config.response_format == ResponseFormat("regex", "a+")
    assert generation_config(config, seed=1).response_format == config.response_format
    assert generation_config(structured_outputs={"json_object": True}).response_format.source == '{"type": "object"}'


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"response_format": {"type": "object"}}, "its type is text, json_object, json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "has no 'schema'"),
        ({"response_format": {"type": "json_object", "schema": {}}}, "has 'schema', which type 'json_object'"),
        ({"response_format": ANY, "guided_regex": "a"}, "response_format and guided_regex exclude each other"),
        ({"response_format": ANY, "num_beams": 2}, "response_format goes with no num_beams"),
        ({"response_format": ANY, "ignore_eos": True}, "response_format goes with no ignore_eos"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs has 'structural_tag'"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs takes one of"),
        ({"guided_choice": ["a", ""]}, "guided_choice is a list of texts"),
        ({"guided_json": "{"}, "guided_json is no JSON"),
        ({"guided_json": {"a": float("nan")}}, "guided_json is no JSON"),
        ({"guided_json": {"enum": list(range(9999))}}, "guided_json has more than 4096 values"),
        ({"guided_json": json.loads('{"items":' * 99 + "{}" + "}" * 99)}, "guided_json is nested deeper than 64"),
        ({"guided_json": '{"items":' * 99999}, "guided_json is nested deeper than 64"),
        ({"guided_json": {"anyOf": [{"multipleOf": 4093}, {"multipleOf": 7}]}}, "multipleOf has too many digits"),
        ({"guided_grammar": 'start: %json {"multipleOf": 99999989}'}, "multipleOf is not supported in a grammar"),
        ({"guided_regex": "a" * 20000}, "a regex has 1 to 16384 characters, not 20000"),
    ],
)
def test_refused_spellings(settings, message):
    with pytest.raises(ValueError, match=message):
        generation_config(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guided_json": {"type": "array", "uniqueItems": True}}, "Unimplemented keys: .*uniqueItems"),
        ({"guided_json": {"not": {}, "x-guidance": {"lenient": True}}}, "Unimplemented keys: .*not"),
        ({"guided_json": {"$ref": "http://example.org/a"}}, "http://example.org/a"),
        ({"guided_json": {"type": "string", "pattern": "(?=a)b"}}, "look-ahead"),
        ({"guided_json": {"type": "integer", "minimum": 2, "maximum": 1}}, "minimum .2. is greater than maximum"),
        ({"guided_json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}, "not supported"),
        ({"guided_json": {"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}} for j in range(8)]} for i in range(8)]}},
         "schema too large"),
        ({"guided_regex": "(a"}, "regex is not supported: .*unclosed group"),
        ({"guided_grammar": "start: nothing"}, "nothing"),
    ],
)  # fmt: skip
def test_formats_that_can_not_be_compiled(tokenizers, settings, message):
    with pytest.raises(ConstraintError, match=message):
        compiler(tokenizers["qwen2"]).compile(generation_config(settings).response_format)


def test_masks_of_tokens_that_are_forbidden(tokenizers):
    tokenizer = tokenizers["qwen2"]
    (a,) = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a"))
    with pytest.raises(ConstraintError, match="no token that the model has continues the answer"):
        masks_of(tokenizer, {"type": "regex_schema", "regex_schema": "a"}, never=(a,)).mask()
    masks = masks_of(tokenizer, {"type": "regex_schema", "regex_schema": "a"})
    assert np.flatnonzero(masks.mask() == 0).tolist() == [a]
    masks.advance(a)
    assert np.flatnonzero(masks.mask() == 0).tolist() == [tokenizer.eos_token_id]


def test_llguidance_is_named_where_it_is_missing(tokenizers, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(ImportError, match=r'needs llguidance: pip install "paddle_internvl\[structured\]"'):
        compiler_of(tokenizers["qwen2"], 9999)


def test_prescribed_text_comes_in_the_tokenizer_s_own_tokens(tokenizer):
    properties = {"weather": {"enum": ["quick", "documentation"]}, "describe": {"const": "lazy"}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    assert spelt(tokenizer, json_schema(schema), '{"weather": "documentation", "describe": "lazy"}')
