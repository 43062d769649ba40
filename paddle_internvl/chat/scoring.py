"""Scoring of given answers: the log-probability of each of their tokens.

In: a model, OpenAI-style messages, answers as text or as token ids. Out: floats, the log-probabilities that generating
exactly these tokens would have reported. Reward data, perplexity and multiple choice are made of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import paddle

from paddle_internvl.chat.messages import Messages, ParsedMessages, parse
from paddle_internvl.engine.request import require_embeddings, require_room
from paddle_internvl.models.loss import label_log_probs
from paddle_internvl.preprocess.tile_limits import cut_tiles
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
from paddle_internvl.prompt.templates import ASSISTANT

Answer = str | Sequence[int]


@paddle.no_grad()
def answer_log_probs(
    model, tokenizer, messages: Messages, answers: Sequence[Answer], context_length: int | None = None, **prompt_options
) -> list[list[float]]:
    """Log-probabilities of the tokens of answers to one prompt.

    The prompt is computed once; each answer is computed behind it.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        messages: a conversation that ends with a user's message.
        answers: texts, to which the token that ends an answer is added, or token ids, scored as they are.
        context_length: limit of prompt and answer, in tokens; None: the model's.
        prompt_options: of `chat.messages.parse`.
    Returns:
        For each answer one natural logarithm for each token, the end token of a text included.
    Raises:
        ContextOverflowError: prompt and answer are longer than context_length.
        ValueError: an answer without tokens, or a token without a row in the model's embedding; see `parse`.
    """
    limit = model.config.llm_config.context_length if context_length is None else context_length
    parsed = parse(model, messages, **prompt_options)
    prompt = parsed.ids(tokenizer)
    rows = [answer_ids(tokenizer, parsed, answer) for answer in answers]
    if not all(rows):
        raise ValueError(f"answer {rows.index([])} has no tokens; give at least the token that ends an answer")
    embeds = prompt_embeds(model, tokenizer, parsed, prompt, rows, limit)
    decoder = model.language_model
    cache = decoder.new_cache(1, len(prompt) + max(map(len, rows), default=0))
    last = decoder.hidden_states(inputs_embeds=embeds, cache=cache, last_only=True)  # [1, 1, D]
    scores = []
    for ids in rows:
        cache.length = len(prompt)  # the answer before is overwritten
        hidden = last
        if len(ids) > 1:
            positions = paddle.arange(len(prompt), len(prompt) + len(ids) - 1).unsqueeze(0)
            # dynamic rope: each position as in its own decode step, when the text was just so long
            rest = decoder.model(
                model.get_input_embeddings()(paddle.to_tensor([ids[:-1]])), positions, cache=cache, length=positions + 1
            )
            hidden = paddle.concat([last, rest], axis=1)
        scores.append(label_log_probs(hidden[0], decoder.lm_head, paddle.to_tensor(ids)).tolist())
    return scores


def prompt_embeds(
    model, tokenizer, parsed: ParsedMessages, prompt: list[int], answers: Sequence[list[int]], context_length: int
) -> paddle.Tensor:
    """Embeddings [1, L, D] of a prompt with its visual tokens, behind which every answer has room.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        parsed: the conversation.
        prompt: its L token ids.
        answers: token ids of each answer.
        context_length: limit of prompt and answer, in tokens.
    Raises:
        ContextOverflowError: prompt and answer are longer than context_length.
        ValueError: a token without a row in the model's embedding.
    """
    require_room(len(prompt) + max(map(len, answers), default=0) - 1, parsed.costs, context_length)
    require_embeddings([*prompt, *chain(*answers)], model, tokenizer)
    tiles = cut_tiles(parsed.pictures, parsed.grids, parsed.side)
    model.img_context_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    return model.embed(paddle.to_tensor([prompt]), model.visual_tokens(tiles))


def answer_ids(tokenizer, parsed: ParsedMessages, answer: Answer) -> list[int]:
    """Token ids of an answer, in the place where it stands in the conversation."""
    if not isinstance(answer, str):
        return list(answer)
    conversation = copy.deepcopy(parsed.conversation)
    earlier = encode(tokenizer, conversation, visual_tokens := [cost.tokens for cost in parsed.costs])
    conversation.messages[-1] = (conversation.roles[1], answer)
    encoded = encode(tokenizer, conversation, visual_tokens)
    assistant = [i for i, writer in zip(encoded.ids, encoded.writers) if writer == ASSISTANT]
    return assistant[earlier.writers.count(ASSISTANT) :]
