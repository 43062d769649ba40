"""Text of an answer from its token ids: free, as the tokenizer decodes it, or of a response format, byte by byte.

In: a `Prompt` and its settings. Out: a `TextStream`, which takes the ids one by one.
"""

from __future__ import annotations

from functools import partial

from paddle_internvl.engine.tool_calls import hidden_tokens
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import Grammar
from paddle_internvl.generation.streaming import TextStream


def free_text(tokenizer, prompt, config: GenerationConfig) -> TextStream:
    """Text stream of an answer without a format, up to the template's stop.

    Args:
        tokenizer: the model's.
        prompt: a `Prompt`.
        config: the settings.
    """
    return TextStream(
        partial(tokenizer.decode, skip_special_tokens=config.skip_special_tokens),
        (*(() if prompt.stop is None else (prompt.stop,)), *config.stop_strings),
        kept=_kept(config),
        strip=prompt.strip,
        before=prompt.answer_prefix,
        special=() if config.skip_special_tokens else frozenset(tokenizer.all_special_ids),
    )


def formatted_text(tokenizer, prompt, config: GenerationConfig, grammar: Grammar) -> TextStream:
    """Text stream of an answer that matches a grammar: exact, and its bytes are no stop of the template.

    Args:
        tokenizer: the model's.
        prompt: a `Prompt`; with tools the text outside of calls is free, and stripped as without a format.
        config: the settings; its end tokens stand behind the answer, whatever their text.
        grammar: of the answer.
    """
    vocabulary, ends = grammar.vocabulary, frozenset(config.eos_token_id)
    if not config.skip_special_tokens:
        hidden = ends
    elif prompt.tools is None:
        hidden = ends | vocabulary.special
    else:
        hidden = hidden_tokens(tokenizer, vocabulary, prompt.tool_format, ends)
    return TextStream(
        partial(vocabulary.text, hidden=hidden, drop_blank=grammar.drops_blank),
        config.stop_strings,
        kept=_kept(config),
        strip=prompt.strip and prompt.tools is not None,
        before=prompt.answer_prefix,
    )


def _kept(config: GenerationConfig) -> tuple[str, ...]:
    return config.stop_strings if config.include_stop_str_in_output else ()
