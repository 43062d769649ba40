"""Tools: functions that a model may call, written into its prompt, and its calls in a conversation.

In: OpenAI's `tools`, `tool_choice` and `tool_calls`. Out: `ToolUse` and `ToolCall`s, and their text in a `ToolFormat`.
Sources: the chat templates of Qwen2.5 and Qwen3 (Hermes' format); InternLM's documentation of its chat format, and
LMDeploy's rendering of the same. No card of InternVL claims a training for tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paddle_internvl.prompt.templates import Conversation, Mark, Slot

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_TOOLS = 128  # as OpenAI
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_HERMES_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>{lines}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within "
)


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: of the function.
        parameters: JSON Schema of its arguments, an object.
        definition: OpenAI's object, as it was given.
    """

    name: str
    parameters: Mapping
    definition: Mapping


@dataclass(frozen=True)
class ToolUse:
    """The tools of an answer.

    Attributes:
        tools: functions that the answer may call.
        required: whether it has to call one of them.
        parallel: whether it may call several.
        described: functions of the prompt; of a named choice more than `tools`.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    parallel: bool = True
    described: tuple[Tool, ...] = ()

    def __post_init__(self):
        if not self.described:
            object.__setattr__(self, "described", self.tools)


@dataclass(frozen=True)
class ToolCall:
    """A call of a function.

    Attributes:
        id: of the call.
        name: of the function.
        arguments: JSON text; incomplete where the answer was cut.
    """

    id: str
    name: str
    arguments: str

    @property
    def openai(self) -> dict:
        """OpenAI's object."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class ToolFormat:
    """The text of tools, calls and results in a prompt and an answer.

    Attributes:
        open: marks in front of a call, added tokens of the tokenizers that were trained with them.
        head, tail: text behind the marks, and in front of `close`.
        key: name of the arguments in a call.
        close: mark behind a call.
        separator: text in front of a call that follows other text.
        describe: (conversation, tools) -> None: puts the tools into an empty conversation.
        append_results: (conversation, results in a row) -> None: appends the turn of their text.
    """

    open: tuple[str, ...]
    head: str
    tail: str
    key: str
    close: str
    separator: str
    describe: Callable[[Conversation, Sequence[Tool]], None]
    append_results: Callable[[Conversation, Sequence[str]], None]

    def begin(self, name: str) -> str:
        """Text of a call between its marks and its arguments."""
        return f'{self.head}{{"name": {json.dumps(name)}, "{self.key}": '

    @property
    def end(self) -> str:
        """Text of a call between its arguments and `close`."""
        return "}" + self.tail

    def calls(self, calls: Sequence[ToolCall], after: Sequence) -> list[str | Mark]:
        """The text of an assistant's calls.

        Args:
            calls: in order.
            after: parts of the turn in front of them.
        """
        out: list[str | Mark] = []
        for call in calls:
            out += [self.separator] if out or any(after) else []
            arguments = json.dumps(json.loads(call.arguments), ensure_ascii=False)
            out += [*map(Mark, self.open), self.begin(call.name) + arguments + self.end, Mark(self.close)]
        return out


def _describe_hermes(conversation: Conversation, tools: Sequence[Tool]) -> None:
    lines = "".join(f"\n{_json(tool.definition)}" for tool in tools)
    opened, closed = Mark("<tool_call>"), Mark("</tool_call>")
    conversation.tools = (
        "\n\n" if conversation.system_message else "", _HERMES_TOOLS.format(lines=lines), opened, closed,
        " XML tags:\n", opened, '\n{"name": <function-name>, "arguments": <args-json-object>}\n', closed,
    )  # fmt: skip


def _append_hermes(conversation: Conversation, results: Sequence[str]) -> None:
    parts: list[str | Slot | Mark] = []
    for result in results:
        parts += ["\n"] if parts else []
        parts += [Mark("<tool_response>"), f"\n{result}\n", Mark("</tool_response>")]
    conversation.append_message(conversation.roles[0], parts)


def _describe_internlm2(conversation: Conversation, tools: Sequence[Tool]) -> None:
    functions = _json([tool.definition["function"] for tool in tools])
    conversation.append_message("<|im_start|>system name=<|plugin|>\n", [functions])


def _append_internlm2(conversation: Conversation, results: Sequence[str]) -> None:
    for result in results:
        conversation.append_message("<|im_start|>environment name=<|plugin|>\n", [result])


HERMES = ToolFormat(
    open=("<tool_call>",), head="\n", tail="\n", key="arguments", close="</tool_call>", separator="\n",
    describe=_describe_hermes, append_results=_append_hermes,
)  # fmt: skip
INTERNLM2 = ToolFormat(
    open=("<|action_start|>", "<|plugin|>"), head="\n", tail="", key="parameters", close="<|action_end|>", separator="",
    describe=_describe_internlm2, append_results=_append_internlm2,
)  # fmt: skip


def tool_format(conversation: Conversation, tokenizer) -> ToolFormat:
    """The format of a checkpoint: InternLM2's where tokenizer and template have its tokens, else Hermes'.

    Args:
        conversation: of the model's template.
        tokenizer: the model's.
    """
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    trained = added.issuperset({*INTERNLM2.open, INTERNLM2.close}) and "<|im_start|>" in conversation.system_prefix
    return INTERNLM2 if trained else HERMES


def parse_tools(tools, tool_choice=None, parallel_tool_calls: bool | None = None) -> ToolUse | None:
    """Parse OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`.

    Returns:
        The tools; None: there are none, or tool_choice is 'none'.
    Raises:
        ValueError: names the field.
    """
    if not isinstance(parallel_tool_calls, (bool, type(None))):
        raise ValueError(f"parallel_tool_calls={parallel_tool_calls!r} is not supported; use true or false")
    if tools is None or (isinstance(tools, (list, tuple)) and not tools):
        if tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice needs tools")
        return None
    if not isinstance(tools, (list, tuple)) or len(tools) > _MAX_TOOLS:
        raise ValueError(f"tools is a list of at most {_MAX_TOOLS} functions")
    parsed = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools))
    names = [tool.name for tool in parsed]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"tools[{i}].function.name: {name!r} is the name of an earlier one")
    parallel = parallel_tool_calls is not False
    if tool_choice in (None, "auto"):
        return ToolUse(parsed, False, parallel)
    if tool_choice == "none":
        return None
    if tool_choice == "required":
        return ToolUse(parsed, True, parallel)
    function = tool_choice.get("function") if isinstance(tool_choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) and tool_choice.get("type") == "function" else None
    if name is None:
        raise ValueError("tool_choice is 'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}")
    if name not in names:
        raise ValueError(f"tool_choice: {name!r} is none of the tools: {', '.join(names)}")
    return ToolUse((parsed[names.index(name)],), True, False, described=parsed)


def _tool(tool, place: str) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        raise ValueError(f"{place} is no {{'type': 'function', 'function': {{'name': ..., 'parameters': ...}}}}")
    name, description = function.get("name"), function.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{place}.function.name is 1 to 64 of the characters a-z, A-Z, 0-9, _, . and -")
    if not isinstance(description, (str, type(None))):
        raise ValueError(f"{place}.function.description is a text, not {type(description).__name__}")
    try:
        _json(tool)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{place} ({name}) is no JSON, or nested too deeply: {error}") from None
    parameters = function.get("parameters")
    if not isinstance(parameters, (Mapping, type(None))):
        raise ValueError(f"{place}.function.parameters is a JSON Schema (an object), not {type(parameters).__name__}")
    if parameters is None:
        return Tool(name, _NO_PARAMETERS, tool)
    if parameters.get("type", "object") != "object":
        raise ValueError(
            f"{place}.function.parameters ({name}) has type {parameters['type']!r}; arguments are an object"
        )
    return Tool(name, {**parameters, "type": "object"}, tool)


def parse_calls(calls, place: str) -> tuple[ToolCall, ...]:
    """Parse the `tool_calls` of an assistant's message.

    Args:
        calls: OpenAI's objects; arguments as JSON text or an object.
        place: of the message, for errors.
    Raises:
        ValueError: names the call.
    """
    if not isinstance(calls, (list, tuple)):
        raise ValueError(f"{place}: tool_calls is a list, not {type(calls).__name__}")
    return tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls))


def _call(call, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"{place} has no function with a name")
    arguments = function.get("arguments")
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{place}.function.arguments is no JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{place}.function.arguments is a JSON object, not {type(value).__name__}")
    return ToolCall(str(call.get("id") or ""), function["name"], text)


def _json(value) -> str:
    """JSON as the chat templates' `tojson` writes it."""
    return json.dumps(value, ensure_ascii=False)
