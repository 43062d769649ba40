"""The grammar of answers with tool calls: free text up to a mark, then calls whose arguments match their schemas.

In: tools and their format. Out: a `ResponseFormat`. A mark is a token where the tokenizer has it, and text elsewhere; a
mark that is written out letter by letter begins a call as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from paddle_internvl.generation.constraints.compiler import SCHEMA_OPTIONS, ConstraintError, GrammarCompiler
from paddle_internvl.generation.constraints.formats import ResponseFormat, schema_text
from paddle_internvl.prompt.tools import ToolFormat, ToolUse

_MAX_CALLS = 32  # of one answer: a model that repeats a call comes to an end


def calls_format(
    compiler: GrammarCompiler, tools: ToolUse, tool_format: ToolFormat, written: Collection[int], begins: bool = True
) -> ResponseFormat:
    """The format of answers with tool calls; it is compiled.

    Args:
        compiler: of the model's tokenizer.
        tools: of the answer.
        tool_format: of its calls.
        written: ids of added tokens that the text outside of calls may hold.
        begins: see `GrammarCompiler.compile`.
    Raises:
        ConstraintError: a tool's parameters have an error or a feature that is not supported; names the tool.
    """
    schemas = {tool.name: schema_text(f"tools: parameters of {tool.name!r}", tool.parameters) for tool in tools.tools}
    answer = ResponseFormat("tools", _grammar(compiler, tools, tool_format, schemas, sorted(written)))
    try:
        compiler.compile(answer, begins)
    except ConstraintError as error:
        for name, schema in schemas.items():
            try:
                compiler.compile(ResponseFormat("json_schema", schema))
            except ConstraintError as wrong:
                raise ConstraintError(f"tools: parameters of {name!r}: {wrong}") from None
        raise ConstraintError(f"tools: {error}") from None
    return answer


def _grammar(
    compiler: GrammarCompiler, tools: ToolUse, tool_format: ToolFormat, schemas: dict[str, str], written: list[int]
) -> str:
    """The grammar in llguidance's dialect of Lark."""
    vocabulary = compiler.vocabulary
    ids = {vocabulary.tokens[i].decode(errors="replace"): i for i in vocabulary.special}

    def token(mark: str) -> str:
        return f"<[{ids[mark]}]>" if mark in ids else json.dumps(mark)

    opened = " ".join(map(token, tool_format.open))
    has_tokens = all(mark in ids for mark in tool_format.open)
    others = [i for i in written if i in vocabulary.special and vocabulary.tokens[i].decode() not in tool_format.open]
    before = f"(TEXT <[{','.join(map(str, others))}]>)*" if others else ""
    more = f"({json.dumps(tool_format.separator) if tool_format.separator else ''} {opened} call)"
    again = f"{more}{{0,{_MAX_CALLS - 1}}}" if tools.parallel else ""
    if tools.required:
        lines = [f"start: {opened} call {again}"]
    else:
        mark = json.dumps("".join(tool_format.open))
        begin = f"written | {before} TEXT {opened}" if has_tokens else "written"
        lines = [
            f"start: text | begin call {again}", f"text: {before} TEXT", f"begin: {begin}",
            f"written: {before} mark", f"mark[lazy]: TEXT {mark}", r"TEXT: /(.|\n)*/",
        ]  # fmt: skip
    lines.append(f"call: {' | '.join(f'call_{i}' for i in range(len(schemas)))}")
    for i, (name, schema) in enumerate(schemas.items()):
        arguments = json.dumps({**json.loads(schema), "x-guidance": SCHEMA_OPTIONS})
        end = f"{json.dumps(tool_format.end)} {token(tool_format.close)}"
        lines.append(f"call_{i}: {json.dumps(tool_format.begin(name))} %json {arguments} {end}")
    return "\n".join(lines) + "\n"
