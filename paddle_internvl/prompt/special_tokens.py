"""Special tokens: InternVL's names for them, and which added tokens the text of a message may hold.

Ids come from the tokenizer.
"""

from __future__ import annotations

import re

IMAGE_PLACEHOLDER = "<image>"  # what users write where a picture belongs
IMAGE_TOKEN = "<IMAGE_TOKEN>"  # LMDeploy's mark for a picture
IMG_START, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
GROUNDING = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")  # users may write these in a question
ADDED = (IMG_START, IMG_END, IMG_CONTEXT, "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")  # upstream's order

# Added tokens of the published language models (InternLM2, Qwen2 to Qwen3, Yi, Llama 3, Phi-3) that control a
# conversation: roles, ends, tools, other models' media. In a message they are plain text.
_CONTROL = re.compile(
    r"""<img>|</img>|<IMG_CONTEXT>|<video>|<unk>|<pad>|</?s>
    |<\|im_(start|end|sep)\|>|<\|(action_start|action_end|plugin|interpreter)\|>
    |<\|(endoftext|startoftext|begin_of_text|end_of_text|finetune_right_pad_id|step_id|eot_id|eom_id|python_tag)\|>
    |<\|(start|end)_header_id\|>|<\|(system|user|assistant|end|image)\|>|<\|(placeholder|reserved_special_token_)\d+\|>
    |<\|(object_ref|box|quad|vision)_(start|end)\|>|<\|(vision|image|video)_pad\|>""",
    re.VERBOSE,
)
# Added tokens of Qwen2 to Qwen3 that mark parts of a text. With `special: false` in the tokenizer's files, upstream
# makes tokens of them in every text, the message that asks for thoughts included. With `special: true` they are plain
# text in a message.
_MARKS = re.compile(
    r"<\|fim_(prefix|middle|suffix|pad)\|>|<\|(repo_name|file_sep)\|>|</?(tool_call|tool_response|think)>"
)


def writable_tokens(tokenizer) -> frozenset[str]:
    """Added tokens that the text of a message may hold: the grounding marks, the marks of thoughts and tools that are
    not special, and tokens that a fine-tune added.

    Args:
        tokenizer: an `AddedTokensTokenizer`; its folder lists its added tokens.
    Returns:
        Every added token but the control tokens of the published models, their special marks, and the folder's own
        begin, end, padding and unknown tokens.
    """
    special = tokenizer.special_tokens_map  # `tokenizer.unk_token` logs an error where there is none
    named = {special.get(f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    return frozenset(
        str(token)
        for token in tokenizer.added_tokens_decoder.values()
        if str(token) not in named
        and not _CONTROL.fullmatch(str(token))
        and not (token.special and _MARKS.fullmatch(str(token)))
    )
