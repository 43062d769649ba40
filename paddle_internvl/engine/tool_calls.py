"""Tool calls of a request: the format that its answers match, and the tokens that are left out of their text."""

from __future__ import annotations

from collections.abc import Collection

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import compiler_of, require_llguidance
from paddle_internvl.generation.constraints.formats import ResponseFormat
from paddle_internvl.generation.constraints.tool_calls import calls_format
from paddle_internvl.generation.constraints.vocabulary import Vocabulary
from paddle_internvl.prompt.special_tokens import writable_tokens
from paddle_internvl.prompt.thinking import THOUGHT_MARKS
from paddle_internvl.prompt.tools import ToolFormat


def tools_format(model, tokenizer, prompt, config: GenerationConfig | None = None) -> ResponseFormat:
    """The format of an answer that may call the prompt's tools; it is compiled and kept.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        prompt: a `Prompt` with tools.
        config: the settings; None: any.
    Raises:
        ConstraintError: see `calls_format`.
        ValueError: settings that exclude tools.
        ImportError: llguidance is not installed.
    """
    if config is not None and config.response_format is not None:
        raise ValueError("response_format goes with no tools; leave one of them out, or use tool_choice='none'")
    if prompt.thinking and prompt.tools.required:
        raise ValueError("a tool_choice that requires a call goes with no thinking; use tool_choice='auto'")
    require_llguidance("tools")
    names = {*writable_tokens(tokenizer), *THOUGHT_MARKS}
    written = [i for i, token in tokenizer.added_tokens_decoder.items() if str(token) in names]
    compiler = compiler_of(tokenizer, model.config.llm_config.vocab_size)
    return calls_format(compiler, prompt.tools, prompt.tool_format, written, not prompt.answer_prefix)


def hidden_tokens(tokenizer, vocabulary: Vocabulary, tool_format: ToolFormat, ends: Collection[int]) -> frozenset[int]:
    """Ids that are left out of an answer's text: special tokens and end tokens, but no marks of calls."""
    marks = {mark.encode() for mark in (*tool_format.open, tool_format.close)}
    ids = vocabulary.special & {*tokenizer.all_special_ids, *ends}
    return frozenset(i for i in ids if vocabulary.tokens[i] not in marks)
