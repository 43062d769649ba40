"""The grammar of answers with tool calls, on tokenizers with and without tokens for the marks."""

import pytest
from paddlenlp.transformers import AddedToken, AutoTokenizer

from paddle_internvl.generation.constraints.compiler import ConstraintError, GrammarCompiler, token_mask
from paddle_internvl.generation.constraints.tool_calls import calls_format
from paddle_internvl.prompt.tools import HERMES, INTERNLM2, parse_tools
from tests.random_checkpoints import TOKENIZER
from tests.tokenizers.vocabularies import qwen2

PARAMETERS = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time"}},
]
ADDED = {  # case -> format of calls, marks that are added to the tokenizer, whether they are special
    "no tokens": (HERMES, (), False),
    "hermes": (HERMES, ("</tool_call>",), False),
    "internlm2": (INTERNLM2, (*INTERNLM2.open, INTERNLM2.close), True),
}


@pytest.fixture(scope="module", params=ADDED)
def case(request, tmp_path_factory):
    form, marks, special = ADDED[request.param]
    folder = qwen2(tmp_path_factory.mktemp("qwen2")) if request.param == "hermes" else TOKENIZER
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens([AddedToken(mark, special=special) for mark in marks], special_tokens=special)
    return tokenizer, form, GrammarCompiler(tokenizer, len(tokenizer))


def matches(case, answer_format, text: str) -> bool:
    """Whether a text, its marks as tokens where there are any, is a complete answer."""
    tokenizer, _, compiler = case
    matcher = compiler.compile(answer_format).matcher.deep_copy()
    tokens = tokenizer.tokens_by_part(tokenizer.split_added_tokens(text))
    for i in tokenizer.convert_tokens_to_ids([token for token, _ in tokens]):
        if token_mask(matcher, compiler.vocabulary)[i] != 0:
            return False
        matcher.consume_token(compiler.vocabulary.original.get(i, i))
    return matcher.is_accepting()


def test_answers(case):
    tokenizer, form, compiler = case

    def call(name: str, arguments: str) -> str:
        return "".join(form.open) + form.begin(name) + arguments + form.end + form.close

    weather, time = call("weather", '{"city": "Pa</tool>\\n\\"ris"}'), call("time", "{}")
    both, wrong = weather + form.separator + time, (call("now", "{}"), call("weather", "{}"), weather[:-20])
    written = [i for i, token in tokenizer.added_tokens_decoder.items() if str(token) in ("<box>", "</box>")]

    def format_of(choice=None, parallel=None):
        return calls_format(compiler, parse_tools(TOOLS, choice, parallel), form, written)

    free = format_of()
    for text in ("Hello.", "<box>[[1]]</box> and <tool", weather, both, f"I look at <box>.{form.separator}{both}"):
        assert matches(case, free, text), text
    for text in (*wrong, f"{weather} and", f"Hello <img>{weather}"):
        assert not matches(case, free, text), text
    required, single = format_of("required"), format_of("required", False)
    assert [matches(case, required, text) for text in (weather, both, "Hello.", *wrong)] == [True, True] + [False] * 4
    assert [matches(case, single, text) for text in (weather, both)] == [True, False]
    named = format_of({"type": "function", "function": {"name": "time"}})
    assert [matches(case, named, text) for text in (time, weather, time + form.separator + time)] == [
        True,
        False,
        False,
    ]


def test_parameters_that_are_not_supported_name_their_tool(case):
    parameters = {"properties": {"x": {"type": "string", "pattern": "(a"}}}
    tools = [TOOLS[0], {"type": "function", "function": {"name": "broken", "parameters": parameters}}]
    with pytest.raises(ConstraintError, match="tools: parameters of 'broken': .*is not supported"):
        calls_format(case[2], parse_tools(tools), case[1], [])
    deep = {}
    for _ in range(70):
        deep = {"properties": {"x": deep}}
    tools = [{"type": "function", "function": {"name": "deep", "parameters": deep}}]
    with pytest.raises(ValueError, match="tools: parameters of 'deep' is nested deeper than 64 levels"):
        calls_format(case[2], parse_tools(tools), case[1], [])
