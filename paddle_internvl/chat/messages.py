"""Chat with OpenAI-style messages: text, pictures and clips in, `Response`s out.

Joins `prompt.messages` (turns), `media.opening` (pictures), `preprocess` (tiles) and `batch_generation` (text). User
text is tokenised with special tokens off; only media make image tokens.
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
from paddle_internvl.prompt.encode import Encoded, encode
from paddle_internvl.prompt.messages import Dialogue, apply_template, parse_messages
from paddle_internvl.prompt.templates import Conversation, get_conv_template
from paddle_internvl.prompt.thinking import thinking_system_message
from paddle_internvl.prompt.tools import ToolFormat, ToolUse, parse_tools, tool_format

Messages = Sequence[Mapping] | Dialogue


@dataclass(frozen=True)
class TokenCount:
    """Token count of a prompt.

    Attributes:
        total: all tokens.
        visual: tokens of all pictures.
        pictures: tiles and tokens of each picture.
    """

    total: int
    visual: int
    pictures: tuple[PictureCost, ...]


@dataclass(frozen=True)
class ParsedMessages:
    """Parsed messages: a conversation in a model's template, and its pictures before they are cut into tiles.

    Attributes:
        conversation: in the model's template, the assistant's last turn open.
        pictures: RGB PIL image and tile options of each picture.
        grids: tile grid of each picture.
        costs: tiles and tokens of each picture.
        side: S, tile side in pixels.
        tools: that the answer may call; None: it calls none.
        tool_format: of tool calls; None: the conversation has none.
    """

    conversation: Conversation
    pictures: list[tuple]
    grids: list[TileGrid]
    costs: tuple[PictureCost, ...]
    side: int
    tools: ToolUse | None = None
    tool_format: ToolFormat | None = None

    def encoded(self, tokenizer) -> Encoded:
        """Token ids of the prompt, one `<IMG_CONTEXT>` for each visual token, and their writers."""
        return encode(tokenizer, self.conversation, [cost.tokens for cost in self.costs])

    def ids(self, tokenizer) -> list[int]:
        """Token ids of the prompt."""
        return self.encoded(tokenizer).ids


def parse(
    model,
    messages: Messages,
    *,
    system: str | None = None,
    thinking: bool = False,
    keep_thoughts: bool = True,
    tools: Sequence[Mapping] | None = None,
    tool_choice: str | Mapping | None = None,
    parallel_tool_calls: bool | None = None,
    min_num: int | None = None,
    max_num: int | None = None,
    use_thumbnail: bool | None = None,
    max_total_tiles: int | None = None,
    opener: Callable = open_media,
) -> ParsedMessages:
    """Parse messages into the model's template, open their media, and choose each picture's tile grid.

    Args:
        model: an `InternVLChatModel`, for its template, config and tokens per tile.
        messages: see `prompt.messages`; or a parsed `Dialogue`.
        system: system message for messages without one; "": no system turn; None: the model's.
        thinking: ask for thoughts before the answer, with the system message of the InternVL3.5 cards; an own system
            message must ask for `<think>` and `</think>` itself.
        keep_thoughts: whether the thoughts of earlier answers are part of the prompt, as in upstream's history.
        tools: functions that the answer may call, as in OpenAI's API; they end the system message.
        tool_choice: 'auto' (the default), 'none', 'required', or the function to be called.
        parallel_tool_calls: whether an answer may hold several calls; None: it may.
        min_num: minimum of tiles of a picture without an option of its own; None: the config's.
        max_num: maximum of tiles of such a picture; None: the config's.
        use_thumbnail: whether such a picture gets a thumbnail tile; None: the config's.
        max_total_tiles: limit of the tiles of all pictures together.
        opener: function in the place of `open_media`; its pictures need no more than a `size`.
    Returns:
        The conversation, the pictures, and the grid of each.
    Raises:
        ValueError: messages, media or limits that make no prompt.
        FileNotFoundError: a medium that does not exist.
    """
    dialogue = messages if isinstance(messages, Dialogue) else parse_messages(messages)
    control = TileControl.from_config(
        model.config, min_num=min_num, max_num=max_num, use_thumbnail=use_thumbnail, total=max_total_tiles
    )
    opened = [opener(medium.kind, medium.source, medium.options) for medium in dialogue.media]
    pictures = [(image, options) for images, options in opened for image in images]
    grids = plan_grids(pictures, control)
    conversation = get_conv_template(model.template)
    requested = system if dialogue.system is None else dialogue.system
    if thinking:
        conversation.system_message = thinking_system_message(requested)
    else:
        conversation.system_message = model.system_message if requested is None else requested
    use = parse_tools(tools, tool_choice, parallel_tool_calls) or dialogue.tools
    turns = dialogue.turns if keep_thoughts else [turn.without_thoughts() for turn in dialogue.turns]
    kind = tool_format(conversation, model.tokenizer) if use or dialogue.calls_tools else None
    if use:
        kind.describe(conversation, use.described)
    apply_template(conversation, turns, [len(images) for images, _ in opened], kind)
    conversation.answer_prefix = dialogue.answer_prefix
    costs = tuple(PictureCost(grid.tiles, grid.tiles * model.num_image_token) for grid in grids)
    return ParsedMessages(conversation, pictures, grids, costs, control.side, use, kind)


def build_prompt(
    model, tokenizer, messages: Messages, context_length: int | None = None, *, thinking: bool = False, **prompt_options
) -> Prompt:
    """The prompt of a conversation: token ids and tiles.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        messages: a conversation that ends with a user's message, or with the beginning of an answer.
        context_length: limit of prompt and answer, in tokens; None: no limit.
        thinking: see `parse`; the thoughts of the answer are split from its text.
        prompt_options: of `parse`.
    Raises:
        ContextOverflowError: the prompt has context_length tokens or more; raised before a picture is cut.
    """
    parsed = parse(model, messages, thinking=thinking, **prompt_options)
    encoded = parsed.encoded(tokenizer)
    ids = encoded.ids
    require_room(len(ids), parsed.costs, context_length)
    with timing.part("pictures"):
        tiles = cut_tiles(parsed.pictures, parsed.grids, parsed.side)
    return Prompt(
        ids, tiles, parsed.conversation.stop, model.end_token_ids, answer_prefix=tuple(encoded.answer_prefix),
        thinking=thinking, tools=parsed.tools, tool_format=parsed.tool_format,
    )  # fmt: skip


def answer_messages(
    model,
    tokenizer,
    conversations: Sequence[Messages],
    generation_config=None,
    context_length=None,
    engine=None,
    **prompt_options,
) -> list[Response]:
    """Answer several conversations in one batch; batch = single.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's.
        conversations: messages of each conversation.
        generation_config: of all conversations, or a list with one for each.
        context_length: limit of prompt and answer, in tokens; None: the model's.
        engine: see `BatchGeneration`.
        prompt_options: of `parse`.
    Returns:
        One `Response` for each conversation.
    Raises:
        ContextOverflowError: a prompt leaves no room for an answer.
        ValueError: see `parse`.
    """
    answers = _answers(model, tokenizer, conversations, generation_config, context_length, engine, prompt_options)
    for _ in answers:
        pass
    return answers.responses()


def stream_text(
    model, tokenizer, messages: Messages, generation_config=None, context_length=None, **prompt_options
) -> Iterator[str]:
    """Stream the text of one answer, without its thoughts. Arguments and errors: see `answer_messages`.

    Returns:
        An iterator of texts whose concatenation is the answer; closing it cancels the generation.
    """
    for response in stream_responses(model, tokenizer, [messages], generation_config, context_length, **prompt_options):
        if response.text:
            yield response.text


def stream_responses(
    model,
    tokenizer,
    conversations: Sequence[Messages],
    generation_config=None,
    context_length=None,
    engine=None,
    **prompt_options,
) -> Iterator[Response]:
    """Stream answers to several conversations. Arguments and errors: see `answer_messages`.

    Returns:
        An iterator of `Response`s with the text and thoughts generated since the last `Response` of the same index. The
        last one of each index has the finish_reason, all tokens and log-probabilities.
    """
    answers = _answers(model, tokenizer, conversations, generation_config, context_length, engine, prompt_options)
    for config in answers.configs:
        if config.n > 1:
            raise ValueError(f"n={config.n}: a stream has one answer to each prompt")
    for piece in answers:
        if piece.response is not None:
            yield replace(piece.response, text=piece.text, index=piece.index, reasoning=piece.reasoning or None)
        elif piece.text or piece.reasoning or piece.calls:
            request = answers.answers[piece.index]
            yield Response(
                piece.text, len(request.ids), len(request.prompt.ids), None, index=piece.index,
                reasoning=piece.reasoning or None,
            )  # fmt: skip


def _answers(
    model, tokenizer, conversations, generation_config, context_length, engine, prompt_options
) -> BatchGeneration:
    limit = model.config.llm_config.context_length if context_length is None else context_length
    prompts = [build_prompt(model, tokenizer, messages, limit, **prompt_options) for messages in conversations]
    if isinstance(generation_config, (list, tuple)):
        configs = [read_config(config) for config in generation_config]
    else:
        configs = read_config(generation_config)
    return BatchGeneration(model, tokenizer, prompts, configs, limit, engine)


def render_prompt(model, messages: Messages, **prompt_options) -> str:
    """Render the prompt as text, every picture as `<image>`; a tokenizer may put a BOS token before it."""
    return parse(model, messages, **prompt_options).conversation.get_prompt()


def count_tokens(model, tokenizer, messages: Messages, **prompt_options) -> TokenCount:
    """Token count of the prompt of a conversation, pictures included."""
    parsed = parse(model, messages, **prompt_options)
    return TokenCount(len(parsed.ids(tokenizer)), sum(cost.tokens for cost in parsed.costs), parsed.costs)
