"""OpenAI-style messages with pictures and clips in, `Response`s out.

Joins `prompt.messages` (turns), `media.opening` (pictures), `preprocess` (tiles) and `batch_generation` (text). What
users write is tokenised with special tokens off; only media make image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from paddle_internvl import timing
from paddle_internvl.chat.batch_generation import BatchGeneration
from paddle_internvl.engine.request import Prompt, require_room
from paddle_internvl.engine.response import PictureCost, Response
from paddle_internvl.generation.config import generation_config as read_config
from paddle_internvl.media.opening import open_media
from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.tile_limits import TileControl, cut_tiles, plan_grids
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.messages import Dialogue, apply_template, parse_messages
from paddle_internvl.prompt.templates import Conversation, get_conv_template

Messages = Sequence[Mapping] | Dialogue


@dataclass(frozen=True)
class TokenCount:
    """Tokens of a prompt: all, those of its pictures, and what each picture takes."""

    total: int
    visual: int
    pictures: tuple[PictureCost, ...]


@dataclass(frozen=True)
class ParsedMessages:
    """Messages as a model reads them.

    Attributes:
        conversation: in the model's template, its last turn open. pictures: RGB PIL image and tile options of each.
        grids: how each is cut. costs: what each takes. side: S, pixels.
    """

    conversation: Conversation
    pictures: list[tuple]
    grids: list[TileGrid]
    costs: tuple[PictureCost, ...]
    side: int

    def ids(self, tokenizer) -> list[int]:
        """Token ids, with room for the pictures."""
        return encode(tokenizer, self.conversation, [cost.tokens for cost in self.costs]).ids


def parse(
    model,
    messages: Messages,
    *,
    system: str | None = None,
    min_num: int | None = None,
    max_num: int | None = None,
    use_thumbnail: bool | None = None,
    max_total_tiles: int | None = None,
    mark: str | None = None,
    opener: Callable = open_media,
) -> ParsedMessages:
    """Messages in the model's template, their media opened, and how they will be cut.

    Args:
        messages: see `prompt.messages`; or parsed ones.
        system: the system message if the messages hold none; "" for none at all; None: the model's own.
        min_num, max_num, use_thumbnail: tiles of a picture that does not say it itself; None: the config's.
        max_total_tiles: of all pictures together. mark: text that stands for a picture of its message.
        opener: opens a medium in the place of `open_media`; its pictures need no more than a `size`.
        model: an `InternVLChatModel`, for its template, config and tokens of a tile.
    Returns:
        The conversation in the model's template, the pictures, and the grid of each.
    Raises:
        ValueError: messages, media or limits that make no prompt; FileNotFoundError: a medium that is not there.
    """
    dialogue = messages if isinstance(messages, Dialogue) else parse_messages(messages)
    control = TileControl.from_config(
        model.config, min_num=min_num, max_num=max_num, use_thumbnail=use_thumbnail, total=max_total_tiles
    )
    opened = [opener(medium.kind, medium.source, medium.options) for medium in dialogue.media]
    pictures = [(image, options) for images, options in opened for image in images]
    grids = plan_grids(pictures, control)
    conversation = get_conv_template(model.template)
    conversation.system_message = next(
        text for text in (dialogue.system, system, model.system_message) if text is not None
    )
    apply_template(conversation, dialogue.turns, [len(images) for images, _ in opened], mark)
    costs = tuple(PictureCost(grid.tiles, grid.tiles * model.num_image_token) for grid in grids)
    return ParsedMessages(conversation, pictures, grids, costs, control.side)


def build_prompt(model, tokenizer, messages: Messages, context_length: int | None = None, **how) -> Prompt:
    """The prompt of a conversation that ends with a user's message. how: see `parse`.

    Raises:
        ContextOverflowError: as long as context_length; known before a picture is cut.
    """
    parsed = parse(model, messages, **how)
    ids = parsed.ids(tokenizer)
    require_room(len(ids), parsed.costs, context_length)
    with timing.part("pictures"):
        tiles = cut_tiles(parsed.pictures, parsed.grids, parsed.side)
    return Prompt(ids, tiles, parsed.conversation.stop)


def answer_messages(
    model, tokenizer, conversations: Sequence[Messages], generation_config=None, context_length=None, engine=None, **how
) -> list[Response]:
    """The answers to several conversations in one batch, equal to those one by one.

    Args:
        model: an `InternVLChatModel`. tokenizer: its. conversations: messages of each.
        generation_config: for all, or a list with one for each. context_length: the most tokens of prompt and answer;
            None: the model's. engine: see `BatchGeneration`. how: see `parse`.
    Returns:
        One `Response` for each conversation.
    Raises:
        ContextOverflowError: a prompt that leaves no room. Others: see `parse`.
    """
    answers = _answers(model, tokenizer, conversations, generation_config, context_length, engine, how)
    for _ in answers:
        pass
    return answers.responses()


def stream_text(
    model, tokenizer, messages: Messages, generation_config=None, context_length=None, **how
) -> Iterator[str]:
    """One answer piece by piece, as it is made.

    Args:
        model, tokenizer, context_length: as `answer_messages`. messages: of one conversation.
        generation_config: its settings. how: see `parse`.
    Returns:
        An iterator of texts whose sum is the answer; closing it stops the generation.
    Raises:
        As `answer_messages`.
    """
    for response in stream_responses(model, tokenizer, [messages], generation_config, context_length, **how):
        if response.text:
            yield response.text


def stream_responses(
    model, tokenizer, conversations: Sequence[Messages], generation_config=None, context_length=None, engine=None, **how
) -> Iterator[Response]:
    """Answers as they are made: `Response`s whose text is what is new since the one before of that index; the last one
    of each index has the finish_reason, all tokens and log-probabilities. Arguments: see `answer_messages`."""
    answers = _answers(model, tokenizer, conversations, generation_config, context_length, engine, how)
    for config in answers.configs:
        if config.n > 1:
            raise ValueError(f"n={config.n}: a stream is of one answer to each prompt")
    for piece in answers:
        if piece.response is not None:
            yield replace(piece.response, text=piece.text, index=piece.index)
        elif piece.text:
            made = answers.answers[piece.index]
            yield Response(piece.text, len(made.ids), len(made.prompt.ids), None, index=piece.index)


def _answers(model, tokenizer, conversations, generation_config, context_length, engine, how) -> BatchGeneration:
    limit = model.config.llm_config.context_length if context_length is None else context_length
    prompts = [build_prompt(model, tokenizer, messages, limit, **how) for messages in conversations]
    each = isinstance(generation_config, (list, tuple))
    configs = [read_config(given) for given in generation_config] if each else read_config(generation_config)
    return BatchGeneration(model, tokenizer, prompts, configs, limit, engine)


def render_prompt(model, messages: Messages, **how) -> str:
    """The prompt as text, every picture shown as `<image>`; a tokenizer may put a BOS token before it."""
    return parse(model, messages, **how).conversation.get_prompt()


def count_tokens(model, tokenizer, messages: Messages, **how) -> TokenCount:
    """How long the prompt of a conversation is, pictures included."""
    parsed = parse(model, messages, **how)
    return TokenCount(len(parsed.ids(tokenizer)), sum(cost.tokens for cost in parsed.costs), parsed.costs)
