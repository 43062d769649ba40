"""The model cards' `chat` and `batch_chat`: questions with `<image>` marks and pixel tiles in, text out.

They make `Prompt`s for `BatchGeneration`. Source: upstream `modeling_internvl_chat.py`, `chat` and `batch_chat`.

Unlike upstream, the caller's `generation_config` and `history` are left as they were, a prompt whose `<image>` marks
and pictures differ in number is an error, and a batch may hold any number of pictures, histories and system messages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.engine.request import Prompt, require_room
from paddle_internvl.engine.response import History, PictureCost
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.config import generation_config as read_config
from paddle_internvl.prompt.encode import encode_prompt
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
        model: an `InternVLChatModel`.
        tokenizer: the model's, from AutoTokenizer.
        pixel_values: [T, 3, S, S], tiles of all pictures, earlier turns' pictures first; or None.
        question: text with one `<image>` per picture of this turn. Without history and marks, one is put in front.
        generation_config: a dict, a `GenerationConfig` or PaddleNLP's; a dict may hold a `streamer`. The end token is
            the template's; `eos_token_id` is ignored, as upstream does.
        history: earlier (question, answer) pairs.
        return_history: also return the history with this turn.
        num_patches_list: number of tiles of each picture; None: all tiles are one picture.
        IMG_START_TOKEN: as upstream's signature; must be the default.
        IMG_END_TOKEN: likewise.
        IMG_CONTEXT_TOKEN: likewise.
        verbose: print the number of tiles, the prompt and the answer.
    Returns:
        The answer, or (answer, history).
    Raises:
        ContextOverflowError: the prompt leaves no room for an answer in the model's context.
        ValueError: tiles, pictures and `<image>` marks don't fit together, or a setting is not supported.
        TypeError: `pixel_values` is a path or picture instead of its tiles.
    """
    streamer = generation_config.get("streamer") if isinstance(generation_config, dict) else None
    try:
        _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
        if history is None and pixel_values is not None:
            question = _with_placeholder(question)
        if num_patches_list is None:
            num_patches_list = [] if pixel_values is None else [_tile_count(pixel_values)]
        pictures = _pictures(pixel_values, num_patches_list)
        prompt = _prompt(model, tokenizer, question, history, pictures)
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
        tiles = _tile_count(pixel_values)
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
        model, tokenizer, generation_config, return_history, verbose: see `chat`.
        pixel_values: [T, 3, S, S], tiles of all pictures in the order of the questions, or None.
        questions: one per sample.
        num_patches_list: per sample the number of tiles of its picture (0: no picture), or a list with the number of
            tiles of each of its pictures, its history's pictures first; required with pixel_values.
        history: per sample its earlier (question, answer) pairs, or None.
        IMG_START_TOKEN: see `chat`.
        image_counts: old name of num_patches_list.
        system_messages: per sample its system message; None: the model's; "": no system turn.
    Returns:
        The answers, equal to `chat`'s one by one; or (answers, histories).
    Raises:
        ContextOverflowError: see `chat`.
        ValueError: counts don't fit together.
    """
    _require_default_tokens(IMG_START_TOKEN, IMG_END_TOKEN, IMG_CONTEXT_TOKEN)
    counts = num_patches_list if num_patches_list is not None else image_counts
    if counts is None:
        if pixel_values is not None:
            raise ValueError("pixel_values needs num_patches_list, the number of tiles of each question")
        counts = [0] * len(questions)
    per_sample = {"num_patches_list": counts, "history": history, "system_messages": system_messages}
    for name, values in per_sample.items():
        if values is not None and len(values) != len(questions):
            raise ValueError(f"{len(questions)} questions but {name} has {len(values)} entries")
    counts = [list(count) if isinstance(count, Sequence) else [count] * bool(count) for count in counts]
    pictures = iter(_pictures(pixel_values, [tiles for sample in counts for tiles in sample]))
    histories = history or [None] * len(questions)
    systems = system_messages or [None] * len(questions)
    questions = [
        _with_placeholder(question) if tiles and turns is None else question
        for question, tiles, turns in zip(questions, counts, histories)
    ]
    prompts = [
        _prompt(model, tokenizer, question, turns, [next(pictures) for _ in tiles], system)
        for question, tiles, turns, system in zip(questions, counts, histories, systems)
    ]
    answers = BatchGeneration(model, tokenizer, prompts, _settings(generation_config))
    for _ in answers:
        pass
    texts = [response.text for response in answers.responses()]
    if verbose:
        for prompt, text in zip(prompts, texts):
            print(f"{_readable(tokenizer, prompt.ids)} {text}")
    if not return_history:
        return texts
    return texts, [History([*(turns or []), turn]) for turns, turn in zip(histories, zip(questions, texts))]


def _settings(generation_config) -> GenerationConfig:
    """Generation settings without the streamer and the end token, which upstream overwrites."""
    if isinstance(generation_config, dict):
        generation_config = {k: v for k, v in generation_config.items() if k not in ("streamer", "eos_token_id")}
    config = read_config(generation_config, eos_token_id=())
    if config.n > 1:
        raise ValueError(f"n={config.n}: chat returns one answer; chat_messages returns them all")
    return config


def _require_default_tokens(*tokens: str) -> None:
    if tokens != (IMG_START, IMG_END, IMG_CONTEXT):
        raise ValueError(f"image tokens are {IMG_START} {IMG_END} {IMG_CONTEXT} in every checkpoint, not {tokens}")


def _tile_count(pixel_values: ArrayLike | None) -> int:
    if pixel_values is None:
        return 0
    if not hasattr(pixel_values, "shape"):
        kind = type(pixel_values).__name__
        raise TypeError(f"pixel_values are tiles [T, 3, S, S], not a {kind}; make them by load_image(path)")
    return pixel_values.shape[0]


def _pictures(pixel_values: ArrayLike | None, counts: Sequence[int]) -> list[np.ndarray]:
    """Split the tiles [T, 3, S, S] into the tiles of each picture."""
    tiles = _tile_count(pixel_values)
    if tiles != sum(counts):
        raise ValueError(f"pixel_values holds {tiles} tiles but num_patches_list counts {sum(counts)}")
    if not counts:
        return []
    pixels = pixel_values if isinstance(pixel_values, np.ndarray) else pixel_values.astype("float32").numpy()
    return np.split(pixels, np.cumsum(counts)[:-1])


def _with_placeholder(question: str) -> str:
    return question if IMAGE_PLACEHOLDER in question else f"{IMAGE_PLACEHOLDER}\n{question}"


def _prompt(model, tokenizer, question: str, history, pictures: list[np.ndarray], system: str | None = None) -> Prompt:
    conversation = get_conv_template(model.template)
    conversation.system_message = model.system_message if system is None else system
    for turn in [*(history or []), (question, None)]:
        for role, text in zip(conversation.roles, turn):
            conversation.append_message(role, text)
    costs = [PictureCost(len(tiles), model.num_image_token * len(tiles)) for tiles in pictures]
    ids = encode_prompt(tokenizer, conversation, [cost.tokens for cost in costs])
    require_room(len(ids), costs, model.config.llm_config.context_length)  # the answer itself may go on, as upstream's
    return Prompt(ids, pictures, conversation.stop)


def _readable(tokenizer, ids: list[int]) -> str:
    """A prompt with every picture's tokens shown as one `<image>`."""
    tokens = [token for token in tokenizer.convert_ids_to_tokens(ids) if token not in (IMG_CONTEXT, IMG_END)]
    return tokenizer.convert_tokens_to_string([IMAGE_PLACEHOLDER if t == IMG_START else t for t in tokens])
