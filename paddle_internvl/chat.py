"""Chat: messages and pixel tiles in, text out. The cards' functions, with the model as first argument.

It knows prompts, ids and text, and leaves pictures to `preprocess` and layers to `models`.
Source: upstream `modeling_internvl_chat.py`, `chat` and `batch_chat`.

Unlike upstream, the caller's `generation_config` and `history` are left as they were, and a prompt whose `<image>`
marks and pictures differ in number is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import paddle

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.config import generation_config as read_config
from paddle_internvl.generation.generate import FINISHED, Step, generate_steps
from paddle_internvl.generation.streaming import TextStream
from paddle_internvl.prompt.encode import encode_prompt
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER, IMG_CONTEXT, IMG_END, IMG_START
from paddle_internvl.prompt.templates import Conversation, get_conv_template

History = list[tuple[str, str]]


@dataclass
class _Request:
    """One prompt, ready for the decoder."""

    ids: list[int]
    question: str  # as it goes into the history
    config: GenerationConfig
    text: TextStream


def chat(
    model,
    tokenizer,
    pixel_values,
    question: str,
    generation_config,
    history: History | None = None,
    return_history: bool = False,
    num_patches_list: list[int] | None = None,
    IMG_START_TOKEN: str = IMG_START,
    IMG_END_TOKEN: str = IMG_END,
    IMG_CONTEXT_TOKEN: str = IMG_CONTEXT,
    verbose: bool = False,
):
    """Answer a question about no, one or several pictures.

    Args:
        model: an `InternVLChatModel`. tokenizer: from AutoTokenizer.
        pixel_values: [T, 3, S, S], all pictures' tiles one after the other, those of earlier turns first; or None.
        question: with one `<image>` per picture of this turn. Without history and marks, one is put in front.
        generation_config: a dict, a `GenerationConfig` or PaddleNLP's; a dict may hold a `streamer`. The token that
            ends an answer is the template's, whatever `eos_token_id` says.
        history: earlier (question, answer) pairs. return_history: also return the history with this turn.
        num_patches_list: tiles of each picture; None: all tiles are one picture.
        IMG_*_TOKEN: must be the defaults; they stand here because upstream's signature has them.
        verbose: print the number of tiles, the prompt and the answer.
    Returns:
        The answer, or (answer, history).
    Raises:
        ValueError: tiles, pictures and `<image>` marks don't fit together, or a setting is not supported.
    """
    streamer = _streamer(generation_config)
    try:
        _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
        request = _prepare(model, tokenizer, pixel_values, question, generation_config, history, num_patches_list)
        if streamer is not None:
            # A streamer with skip_prompt=True drops the first thing it is given; it shall not be an answer's token.
            streamer.put(np.zeros((1, 0), np.int64))
        answer = "".join(_answer_pieces(model, pixel_values, request, streamer))
    finally:
        if streamer is not None:
            streamer.end()
    if verbose:
        tiles = 0 if pixel_values is None else pixel_values.shape[0]
        print(f"dynamic ViT batch size: {tiles}\n{_readable(tokenizer, request.ids)} {answer}")
    if return_history:
        return answer, [*(history or []), (request.question, answer)]
    return answer


def chat_stream(
    model, tokenizer, pixel_values, question: str, generation_config=None, history=None, num_patches_list=None
) -> Iterator[str]:
    """The same answer piece by piece, as it is made: the pieces' sum is `chat`'s answer. Arguments: see `chat`.
    Closing the iterator stops the generation."""
    request = _prepare(model, tokenizer, pixel_values, question, generation_config, history, num_patches_list)
    yield from _answer_pieces(model, pixel_values, request, None)


def batch_chat(
    model,
    tokenizer,
    pixel_values,
    questions: list[str],
    generation_config,
    num_patches_list: list[int] | None = None,
    history=None,
    return_history: bool = False,
    IMG_START_TOKEN: str = IMG_START,
    IMG_END_TOKEN: str = IMG_END,
    IMG_CONTEXT_TOKEN: str = IMG_CONTEXT,
    verbose: bool = False,
    image_counts: list[int] | None = None,
) -> list[str]:
    """Answer several questions, each about at most one picture, in one batch.

    Args:
        pixel_values: [T, 3, S, S], tiles of all pictures in the order of the questions, or None.
        questions: one per sample. num_patches_list: tiles of each question's picture, 0 for none; needed with pixels.
        Others: see `chat`. image_counts: old name of num_patches_list.
    Returns:
        The answers, equal to those of `chat` one by one.
    Raises:
        NotImplementedError: history, as upstream. ValueError: counts don't fit together.
    """
    if history is not None or return_history:
        raise NotImplementedError("batch_chat takes no history; use chat for conversations of several turns")
    _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
    counts = num_patches_list if num_patches_list is not None else image_counts
    if counts is None:
        if pixel_values is not None:
            raise ValueError("num_patches_list is needed: how many tiles belong to each question")
        counts = [0] * len(questions)
    if len(counts) != len(questions):
        raise ValueError(f"{len(questions)} questions but num_patches_list has {len(counts)} entries")
    _require_tiles(pixel_values, counts)
    requests = []
    for question, count in zip(questions, counts):
        tiles = [count] if count else []
        question = _with_placeholder(question) if tiles else question
        requests.append(_request(model, tokenizer, question, generation_config, None, tiles))
    length = max(len(request.ids) for request in requests)
    ids = np.full((len(requests), length), tokenizer.pad_token_id, np.int64)
    mask = np.zeros((len(requests), length), np.int64)
    for row, request in enumerate(requests):
        ids[row, length - len(request.ids) :] = request.ids
        mask[row, length - len(request.ids) :] = 1
    for step in _steps(model, pixel_values, ids, mask, requests):
        for request, token in zip(requests, step.ids):
            if token != FINISHED:
                request.text.push(int(token))
    return [request.text.text for request in requests]


def _streamer(generation_config):
    return generation_config.get("streamer") if isinstance(generation_config, dict) else None


def _require_default_tokens(*tokens: str) -> None:
    if tokens != (IMG_START, IMG_END, IMG_CONTEXT):
        raise ValueError(f"image tokens are {IMG_START} {IMG_END} {IMG_CONTEXT} in every checkpoint, not {tokens}")


def _require_tiles(pixel_values, counts: list[int]) -> None:
    tiles = 0 if pixel_values is None else pixel_values.shape[0]
    if tiles != sum(counts):
        raise ValueError(f"pixel_values holds {tiles} tiles but num_patches_list counts {sum(counts)}")


def _with_placeholder(question: str) -> str:
    return question if IMAGE_PLACEHOLDER in question else f"{IMAGE_PLACEHOLDER}\n{question}"


def _prepare(model, tokenizer, pixel_values, question, generation_config, history, num_patches_list) -> _Request:
    if history is None and pixel_values is not None:
        question = _with_placeholder(question)
    if num_patches_list is None:
        num_patches_list = [] if pixel_values is None else [pixel_values.shape[0]]
    _require_tiles(pixel_values, num_patches_list)
    return _request(model, tokenizer, question, generation_config, history, num_patches_list)


def _request(model, tokenizer, question, generation_config, history, tiles_per_picture) -> _Request:
    model.img_context_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    conversation: Conversation = get_conv_template(model.template)
    conversation.system_message = model.system_message
    for asked, answered in history or []:
        conversation.append_message(conversation.roles[0], asked)
        conversation.append_message(conversation.roles[1], answered)
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], None)
    ids = encode_prompt(tokenizer, conversation, [model.num_image_token * tiles for tiles in tiles_per_picture])
    if isinstance(generation_config, dict):
        generation_config = {k: v for k, v in generation_config.items() if k not in ("streamer", "eos_token_id")}
    config = read_config(generation_config)
    config = replace(config, eos_token_id=(tokenizer.convert_tokens_to_ids(conversation.stop),))
    text = TextStream(
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True), (conversation.stop, *config.stop_strings)
    )
    return _Request(ids, question, config, text)


def _steps(model, pixel_values, ids: np.ndarray, mask: np.ndarray | None, requests: list[_Request]) -> Iterator[Step]:
    """Decoding steps of prompts [B, L] whose `<IMG_CONTEXT>` slots the tiles fill, in order."""
    with paddle.no_grad():
        visual_tokens = None if pixel_values is None else model.extract_feature(pixel_values)
        embeds = model.embed(paddle.to_tensor(ids), visual_tokens)
    mask = None if mask is None else paddle.to_tensor(mask)
    stop = lambda row, generated: requests[row].text.stopped  # noqa: E731
    return generate_steps(model.language_model, embeds, mask, requests[0].config, stop)


def _answer_pieces(model, pixel_values, request: _Request, streamer) -> Iterator[str]:
    """The answer's text in pieces; `streamer` is given every token."""
    for step in _steps(model, pixel_values, np.array([request.ids]), None, [request]):
        token = int(step.ids[0])
        if streamer is not None:
            streamer.put(np.array([token]))
        yield request.text.push(token)
    yield request.text.finish()


def _readable(tokenizer, ids: list[int]) -> str:
    """The prompt with every picture's tokens shown as one `<image>`."""
    tokens = [token for token in tokenizer.convert_ids_to_tokens(ids) if token not in (IMG_CONTEXT, IMG_END)]
    return tokenizer.convert_tokens_to_string([IMAGE_PLACEHOLDER if t == IMG_START else t for t in tokens])
