"""Requests and their answers: `Prompt` in, `Piece`s out, and the errors of a request.

`RequestState` collects the token ids of one answer and turns them into text. No tensors, no scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from paddle_internvl import runtime
from paddle_internvl.engine.answer_parts import AnswerSplitter
from paddle_internvl.engine.answer_text import formatted_text, free_text
from paddle_internvl.engine.response import PictureCost, Response
from paddle_internvl.engine.tool_calls import tools_format
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.constraints.compiler import compiler_of
from paddle_internvl.generation.constraints.token_masks import TokenMasks
from paddle_internvl.models.feature_cache import picture_key
from paddle_internvl.prompt.call_splitter import CallDelta
from paddle_internvl.prompt.tools import ToolFormat, ToolUse

_NO_MEMORY = "not enough memory for this request; send fewer or smaller pictures, or a shorter prompt"
_FAILED = "the request failed inside the engine"


@dataclass(frozen=True)
class Prompt:
    """A tokenized prompt with the tiles of its pictures.

    Attributes:
        ids: token ids, `<IMG_CONTEXT>` where visual tokens belong.
        pictures: tiles [T, 3, S, S] of each picture, in order; uint8, or float32 if they are normalised.
        stop: token of the template that ends an answer; None: no template.
        end_token_ids: further tokens that end an answer, of the folder's generation_config.json.
        strip: whether white space around the answer is removed, as upstream does.
        answer_prefix: last of the ids, if they are the beginning of an answer: the new text continues theirs.
        thinking: whether the thoughts of the answer are split from its text.
        tools: that the answer may call; its calls are split from its text, and their arguments match their schemas.
        tool_format: of the calls.
        picture_keys: `picture_key` of each picture; made here, in the caller's thread, since hashing many tiles takes
            longer than a decode step.
    """

    ids: list[int]
    pictures: list[np.ndarray]
    stop: str | None
    end_token_ids: tuple[int, ...] = ()
    strip: bool = True
    answer_prefix: tuple[int, ...] = ()
    thinking: bool = False
    tools: ToolUse | None = None
    tool_format: ToolFormat | None = None
    picture_keys: tuple[bytes, ...] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "picture_keys", tuple(map(picture_key, self.pictures)))


@dataclass(frozen=True)
class Piece:
    """New text and tokens of one answer, from one step.

    Attributes:
        index: number of the answer.
        text: new text, often ''.
        reasoning: new text of the thoughts, often ''.
        tokens: new token ids.
        log_probs: {id: log-probability} of each new token, the sampled id first; () if not requested.
        response: the complete answer, on the last piece.
        calls: new text of tool calls, often ().
    """

    index: int
    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[dict[int, float], ...] = ()
    response: Response | None = None
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


class ContextOverflowError(ValueError):
    """A prompt that leaves no room for an answer in the context length or the KV cache."""


class QueueFullError(RuntimeError):
    """The queue of waiting requests is full."""


class EngineClosedError(RuntimeError):
    """The engine takes no more requests."""


class RequestFailedError(RuntimeError):
    """A request that failed inside the engine; its `__cause__` is the original exception.

    Attributes:
        out_of_memory: whether memory was exhausted.
    """

    def __init__(self, message: str, out_of_memory: bool = False):
        super().__init__(message)
        self.out_of_memory = out_of_memory

    @classmethod
    def caused_by(cls, error: BaseException) -> RequestFailedError:
        """The error of a request that failed with `error`."""
        failed = cls.without_memory() if runtime.is_out_of_memory(error) else cls(_FAILED)
        failed.__cause__ = error
        return failed

    @classmethod
    def without_memory(cls) -> RequestFailedError:
        """The error of a request for which memory does not suffice."""
        return cls(_NO_MEMORY, out_of_memory=True)


def require_room(length: int, costs: Sequence[PictureCost], context_length: int | None) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Args:
        length: tokens of the prompt.
        costs: of its pictures.
        context_length: limit of prompt and answer together; None: no limit.
    Raises:
        ContextOverflowError: the prompt is as long as the limit.
    """
    if context_length is None or length < context_length:
        return
    tiles, visual = sum(c.tiles for c in costs), sum(c.tokens for c in costs)
    advice = "lower max_num or max_total_tiles, or send fewer pictures" if tiles else "shorten it"
    raise ContextOverflowError(
        f"prompt has {length} tokens ({visual} from {tiles} tiles of {len(costs)} pictures); "
        f"the limit is {context_length}, the answer included; {advice}"
    )


def require_embeddings(ids: Sequence[int], model, tokenizer) -> None:
    """Refuse token ids without a row in the model's embedding.

    Raises:
        ValueError: a token, and both vocabulary sizes.
    """
    rows, highest = model.config.llm_config.vocab_size, max(ids, default=0)
    if highest >= rows:
        raise ValueError(
            f"{tokenizer.convert_ids_to_tokens(highest)!r} has id {highest}, but the model's embedding has {rows} rows "
            f"(the tokenizer has {len(tokenizer)} tokens); take the tokenizer files that belong to these weights"
        )


_CHARACTERS_PER_TOKEN = 64  # at most, in ordinary text


def require_characters(characters: int, context_length: int | None) -> None:
    """Refuse a text that can't fit into the context, before time goes into tokenizing it.

    Args:
        characters: of the text.
        context_length: most tokens of prompt and answer; None: any number.
    Raises:
        ContextOverflowError: names both numbers.
    """
    if context_length is not None and characters > context_length * _CHARACTERS_PER_TOKEN:
        raise ContextOverflowError(
            f"{characters} characters are too many for {context_length} tokens; shorten the text"
        )


class RequestState:
    """One answer to a prompt while it is generated: token ids in, text out.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: the model's tokenizer.
        prompt: the prompt.
        config: the settings.
        context_length: limit of prompt and answer together, where the answer ends; None: no limit.
        index: number of the answer among the config's n.
    Attributes:
        config: the settings with the prompt's end tokens and the ids of the bad words.
        max_tokens: limit of the answer.
        ids: tokens generated so far.
        costs: tiles and visual tokens of each picture.
        masks: masks of the tokens that match config.response_format; None: no format.
    Raises:
        ContextOverflowError: see `require_room`.
        ValueError: a bad word that is not one token, a logit_bias of an id that the model does not have, or a
            response_format that can't be compiled.
        ImportError: a response_format, and llguidance is not installed.
    """

    def __init__(self, model, tokenizer, prompt: Prompt, config: GenerationConfig, context_length=None, index: int = 0):
        if prompt.tools is not None:
            config = replace(config, response_format=tools_format(model, tokenizer, prompt, config))
        stop = () if prompt.stop is None else (tokenizer.convert_tokens_to_ids(prompt.stop),)
        bad = {_single_token(tokenizer, word) for word in config.bad_words}
        self.prompt, self.index = prompt, index
        self.config = replace(
            config,
            eos_token_id=(*config.eos_token_id, *stop, *prompt.end_token_ids),
            bad_token_ids=(*config.bad_token_ids, *bad),
        )
        self.costs = tuple(PictureCost(len(t), len(t) * model.num_image_token) for t in prompt.pictures)
        require_room(len(prompt.ids), self.costs, context_length)
        require_embeddings(prompt.ids, model, tokenizer)
        size = model.config.llm_config.vocab_size
        config.require_vocabulary(size)
        room = config.max_new_tokens if context_length is None else context_length - len(prompt.ids)
        self.max_tokens = min(config.max_new_tokens, room)
        self.masks: TokenMasks | None = None
        if config.response_format is None:
            self._text = free_text(tokenizer, prompt, self.config)
        else:
            if prompt.thinking and prompt.tools is None:
                raise ValueError("response_format goes with no thinking; leave one of them out")
            grammar = compiler_of(tokenizer, size).compile(config.response_format, begins=not prompt.answer_prefix)
            self.masks = TokenMasks(grammar, self.config.eos_token_id, self.config.bad_token_ids)
            self._text = formatted_text(tokenizer, prompt, self.config, grammar)
        before = tokenizer.decode(list(prompt.answer_prefix)) if prompt.thinking else None
        self._splitter = AnswerSplitter(before, prompt.tool_format if prompt.tools else None)
        self.ids: list[int] = []
        self._log_probs: list[dict[int, float]] = []

    @property
    def tiles(self) -> int:
        """Tiles of all pictures."""
        return sum(cost.tiles for cost in self.costs)

    @property
    def stopped(self) -> bool:
        """Whether an end token or stop string was generated."""
        ends = () if self.config.ignore_eos else self.config.eos_token_id
        return self._text.stopped or bool(self.ids and self.ids[-1] in ends)

    def pop_pictures(self) -> list[tuple[bytes, np.ndarray]]:
        """Remove the pictures, which are large, from the prompt; returns key and tiles [T, 3, S, S] of each."""
        pictures = list(zip(self.prompt.picture_keys, self.prompt.pictures))
        self.prompt = replace(self.prompt, pictures=[])
        return pictures

    def append(self, token: int, log_probs: dict[int, float] | None = None) -> Piece:
        """Append a token; the last one's piece has the response."""
        self.ids.append(token)
        text = self._text.push(token)
        if log_probs is not None:
            self._log_probs.append(log_probs)
        ended = self.stopped or len(self.ids) >= self.max_tokens
        new = self._splitter.push(text + self._text.finish() if ended else text, ended)
        return Piece(
            self.index, new.text, (token,), () if log_probs is None else (log_probs,),
            self.response() if ended else None, new.thoughts, new.calls,
        )  # fmt: skip

    def response(self) -> Response:
        """The answer so far."""
        parts = self._splitter.whole(self._text.text)
        return Response(
            text=parts.text,
            reasoning=parts.reasoning,
            tool_calls=parts.tool_calls,
            generate_token_len=len(self.ids),
            input_token_len=len(self.prompt.ids),
            finish_reason="length" if not self.stopped else "tool_calls" if parts.tool_calls else "stop",
            token_ids=tuple(self.ids),
            logprobs=tuple(self._log_probs) if self.config.log_probs else None,
            pictures=self.costs,
        )


def _single_token(tokenizer, word: str) -> int:
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
    if len(ids) != 1:
        raise ValueError(f"bad word {word!r} is {len(ids)} tokens; only single tokens can be forbidden")
    return ids[0]
