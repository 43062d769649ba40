"""The model cards' `chat` and `batch_chat`: questions with `<image>` marks and pixel tiles in, text out.

They make `Prompt`s for `answering` and know neither layers nor decoding.
Source: upstream `modeling_internvl_chat.py`, `chat` and `batch_chat`.

Unlike upstream, the caller's `generation_config` and `history` are left as they were, a prompt whose `<image>` marks
and pictures differ in number is an error, and a batch may hold any number of pictures, histories and system messages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.engine.request import Prompt
from paddle_internvl.engine.response import History
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.config import generation_config as read_config
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER, IMG_CONTEXT, IMG_END, IMG_START
from paddle_internvl.prompt.templates import get_conv_template

Turns = Sequence[tuple[str, str]]


def chat(
    model,
    tokenizer,
    pixel_values,
    question: str,
    generation_config,
    history: Turns | None = None,
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
    streamer = generation_config.get("streamer") if isinstance(generation_config, dict) else None
    try:
        _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
        if history is None and pixel_values is not None:
            question = _with_placeholder(question)
        if num_patches_list is None:
            num_patches_list = [] if pixel_values is None else [pixel_values.shape[0]]
        pictures = _pictures(pixel_values, num_patches_list)
        prompt = _prompt(model, tokenizer, question, history, pictures, model.system_message)
        answers = BatchGeneration(model, tokenizer, [prompt], _settings(generation_config))
        if streamer is not None:
            # A streamer with skip_prompt=True drops the first thing it is given; it shall not be an answer's token.
            streamer.put(np.zeros((1, 0), np.int64))
        for piece in answers:
            if streamer is not None:
                for token in piece.tokens:
                    streamer.put(np.array([token]))
        answer = answers.responses()[0].text
    finally:
        if streamer is not None:
            streamer.end()
    if verbose:
        tiles = 0 if pixel_values is None else pixel_values.shape[0]
        print(f"dynamic ViT batch size: {tiles}\n{_readable(tokenizer, prompt.ids)} {answer}")
    return (answer, History([*(history or []), (question, answer)])) if return_history else answer


def batch_chat(
    model,
    tokenizer,
    pixel_values,
    questions: list[str],
    generation_config,
    num_patches_list: list[int | Sequence[int]] | None = None,
    history: Sequence[Turns | None] | None = None,
    return_history: bool = False,
    IMG_START_TOKEN: str = IMG_START,
    IMG_END_TOKEN: str = IMG_END,
    IMG_CONTEXT_TOKEN: str = IMG_CONTEXT,
    verbose: bool = False,
    image_counts: list[int] | None = None,
    system_messages: Sequence[str | None] | None = None,
):
    """Answer several questions in one batch, each with its own pictures, history and system message.

    Args:
        pixel_values: [T, 3, S, S], tiles of all pictures in the order of the questions, or None.
        questions: one per sample. num_patches_list: per sample the tiles of its picture (0: none), or a list of the
            tiles of each of its pictures, those of its history first; needed with pixels.
        history: per sample its earlier (question, answer) pairs, or None.
        system_messages: per sample its system message; None: the model's; "": none.
        Others: see `chat`. image_counts: old name of num_patches_list.
    Returns:
        The answers, equal to those of `chat` one by one; or (answers, histories).
    Raises:
        ValueError: counts don't fit together.
    """
    _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
    counts = num_patches_list if num_patches_list is not None else image_counts
    if counts is None:
        if pixel_values is not None:
            raise ValueError("num_patches_list is needed: how many tiles belong to each question")
        counts = [0] * len(questions)
    per_sample = {"num_patches_list": counts, "history": history, "system_messages": system_messages}
    for name, values in per_sample.items():
        if values is not None and len(values) != len(questions):
            raise ValueError(f"{len(questions)} questions but {name} has {len(values)} entries")
    counts = [list(count) if isinstance(count, Sequence) else [count] * bool(count) for count in counts]
    pictures = iter(_pictures(pixel_values, [tiles for own in counts for tiles in own]))
    histories = history or [None] * len(questions)
    systems = system_messages or [None] * len(questions)
    prompts, asked = [], []
    for question, own, earlier, system in zip(questions, counts, histories, systems):
        question = _with_placeholder(question) if own and earlier is None else question
        mine = [next(pictures) for _ in own]
        system = model.system_message if system is None else system
        prompts.append(_prompt(model, tokenizer, question, earlier, mine, system))
        asked.append(question)
    answers = BatchGeneration(model, tokenizer, prompts, _settings(generation_config))
    for _ in answers:
        pass
    texts = [response.text for response in answers.responses()]
    if verbose:
        for prompt, text in zip(prompts, texts):
            print(f"{_readable(tokenizer, prompt.ids)} {text}")
    if not return_history:
        return texts
    return texts, [History([*(turns or []), turn]) for turns, turn in zip(histories, zip(asked, texts))]


def _settings(generation_config) -> GenerationConfig:
    """The settings without what upstream overwrites or passes on beside them."""
    if isinstance(generation_config, dict):
        generation_config = {k: v for k, v in generation_config.items() if k not in ("streamer", "eos_token_id")}
    config = read_config(generation_config, eos_token_id=())
    if config.n > 1:
        raise ValueError(f"n={config.n}: chat returns one answer; chat_messages returns them all")
    return config


def _require_default_tokens(*tokens: str) -> None:
    if tokens != (IMG_START, IMG_END, IMG_CONTEXT):
        raise ValueError(f"image tokens are {IMG_START} {IMG_END} {IMG_CONTEXT} in every checkpoint, not {tokens}")


def _pictures(pixel_values: ArrayLike | None, counts: Sequence[int]) -> list[np.ndarray]:
    """Each picture's tiles out of all of them."""
    tiles = 0 if pixel_values is None else pixel_values.shape[0]
    if tiles != sum(counts):
        raise ValueError(f"pixel_values holds {tiles} tiles but num_patches_list counts {sum(counts)}")
    if not counts:
        return []
    pixels = pixel_values if isinstance(pixel_values, np.ndarray) else pixel_values.astype("float32").numpy()
    return np.split(pixels, np.cumsum(counts)[:-1])


def _with_placeholder(question: str) -> str:
    return question if IMAGE_PLACEHOLDER in question else f"{IMAGE_PLACEHOLDER}\n{question}"


def _prompt(model, tokenizer, question: str, history, pictures: list[np.ndarray], system: str) -> Prompt:
    conversation = get_conv_template(model.template)
    conversation.system_message = system
    for asked, answered in history or []:
        conversation.append_message(conversation.roles[0], asked)
        conversation.append_message(conversation.roles[1], answered)
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], None)
    ids = encode(tokenizer, conversation, [model.num_image_token * len(tiles) for tiles in pictures]).ids
    return Prompt(ids, pictures, conversation.stop)


def _readable(tokenizer, ids: list[int]) -> str:
    """A prompt with every picture's tokens shown as one `<image>`."""
    tokens = [token for token in tokenizer.convert_ids_to_tokens(ids) if token not in (IMG_CONTEXT, IMG_END)]
    return tokenizer.convert_tokens_to_string([IMAGE_PLACEHOLDER if t == IMG_START else t for t in tokens])
