"""Write tools.json: prompts with tools, rendered by transformers from the chat templates of Qwen2.5 and Qwen3.

    python -m tests.goldens.make_tools Qwen/Qwen2.5-7B-Instruct Qwen/Qwen3-8B

Takes names of the Hub, or folders with a tokenizer and its chat template. Needs transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city (城市).",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "description": "The time."}}


def _call(name: str, arguments: dict) -> dict:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = [
    [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Weather in Paris?"}],
    [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Weather in Paris and in 北京?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [_call("get_weather", {"city": "Paris", "days": 2}), _call("get_weather", {"city": "北京"})],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sun": true}'},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "assistant", "content": "", "tool_calls": [_call("get_time", {})]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {"role": "assistant", "content": "Sun and rain."},
        {"role": "user", "content": "Thanks."},
    ],
]


def main(names: list[str]) -> None:
    """Render the conversations with every template."""
    prompts = {}
    for name in names:
        tokenizer = AutoTokenizer.from_pretrained(name)
        prompts[Path(name).name] = [
            tokenizer.apply_chat_template(messages, tools=[WEATHER, TIME], tokenize=False, add_generation_prompt=True)
            for messages in CONVERSATIONS
        ]
    document = {"tools": [WEATHER, TIME], "conversations": CONVERSATIONS, "prompts": prompts}
    text = json.dumps(document, ensure_ascii=False, indent=1)
    Path(__file__).with_name("tools.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
