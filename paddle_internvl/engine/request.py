"""What an engine is asked and what it gives: prompts, pieces of answers, and the ways a request can fail.

In: a `Prompt` and a `GenerationConfig`. Out: an `RequestState` that takes ids and gives text. Knows no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from paddle_internvl.engine.response import PictureCost, Response
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.streaming import TextStream
from paddle_internvl.models.feature_cache import picture_key


@dataclass(frozen=True)
class Prompt:
    """What the decoder is asked.

    Attributes:
        ids: token ids, `<IMG_CONTEXT>` where visual tokens belong. pictures: float32 tiles [T, 3, S, S] of each, in
            order. stop: the template's token that ends an answer; None: no template. trimmed: whether white space
            around the answer is left out, as upstream does. keys: `picture_key` of each picture; made here, in the
            caller's thread, since hashing many tiles takes longer than a decode step.
    """

    ids: list[int]
    pictures: list[np.ndarray]
    stop: str | None
    trimmed: bool = True
    keys: tuple[bytes, ...] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "keys", tuple(map(picture_key, self.pictures)))


@dataclass(frozen=True)
class Piece:
    """What one step added to one answer.

    Attributes:
        index: which answer. text: what is new, often ''. tokens: new ids. log_probs: of each new id, if asked for,
            {id: log-probability}, its own first. response: the whole answer, on its last piece.
    """

    index: int
    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[dict[int, float], ...] = ()
    response: Response | None = None


class ContextOverflowError(ValueError):
    """A prompt that leaves no room for an answer."""


def require_room(length: int, costs: Sequence[PictureCost], context_length: int | None) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Args:
        length: tokens of the prompt. costs: of its pictures. context_length: of prompt and answer; None: no limit.
    Raises:
        ContextOverflowError: says how long it is, and what to do.
    """
    if context_length is None or length < context_length:
        return
    tiles, visual = sum(c.tiles for c in costs), sum(c.tokens for c in costs)
    advice = "lower max_num or max_total_tiles, or send fewer pictures" if tiles else "shorten it"
    raise ContextOverflowError(
        f"prompt has {length} tokens ({visual} from {tiles} tiles of {len(costs)} pictures); "
        f"the limit is {context_length}, the answer included; {advice}"
    )


class QueueFullError(RuntimeError):
    """As many requests wait as may."""


class EngineClosedError(RuntimeError):
    """The engine takes no more requests."""


class RequestFailedError(RuntimeError):
    """A request that went wrong on its way; others did not. `out_of_memory`: whether for want of memory."""

    def __init__(self, message: str, out_of_memory: bool = False):
        super().__init__(message)
        self.out_of_memory = out_of_memory


class RequestState:
    """One answer in the making.

    Args:
        model: an `InternVLChatModel`. tokenizer: its. config: the settings. context_length: the most tokens of prompt
            and answer; the answer ends there. None: no such limit. index: which of several.
    Attributes:
        config: with the template's end token and the bad words' ids. limit: the most tokens of the answer.
    Raises:
        ContextOverflowError: a prompt as long as context_length. ValueError: a bad word that is not one token.
    """

    def __init__(self, model, tokenizer, prompt: Prompt, config: GenerationConfig, context_length=None, index: int = 0):
        ends = () if prompt.stop is None else (tokenizer.convert_tokens_to_ids(prompt.stop),)
        bad = {_single_token(tokenizer, word) for word in config.bad_words}
        self.prompt, self.index = prompt, index
        self.config = replace(
            config, eos_token_id=(*config.eos_token_id, *ends), bad_token_ids=(*config.bad_token_ids, *bad)
        )
        self.costs = tuple(PictureCost(len(t), len(t) * model.num_image_token) for t in prompt.pictures)
        require_room(len(prompt.ids), self.costs, context_length)
        room = config.max_new_tokens if context_length is None else context_length - len(prompt.ids)
        self.limit = min(config.max_new_tokens, room)
        self.text = TextStream(
            lambda ids: tokenizer.decode(ids, skip_special_tokens=config.skip_special_tokens),
            (*(() if prompt.stop is None else (prompt.stop,)), *config.stop_strings),
            kept=config.stop_strings if config.include_stop_str_in_output else (),
            strip=prompt.trimmed,
            local=config.skip_special_tokens,
        )
        self.ids: list[int] = []
        self.log_probs: list[dict[int, float]] = []

    @property
    def stopped(self) -> bool:
        """Whether an end token or stop string was met."""
        ends = () if self.config.ignore_eos else self.config.eos_token_id
        return self.text.stopped or bool(self.ids and self.ids[-1] in ends)

    def take_pictures(self) -> list[tuple[bytes, np.ndarray]]:
        """Key and tiles of each picture of the prompt; the tiles, which are large, are let go here."""
        pictures = list(zip(self.prompt.keys, self.prompt.pictures))
        self.prompt = replace(self.prompt, pictures=[])
        return pictures

    def take(self, token: int, log_probs: dict[int, float] | None = None) -> Piece:
        """The next token; the last one's piece has the response."""
        self.ids.append(token)
        text = self.text.push(token)
        own = ()
        if log_probs is not None:
            self.log_probs.append(log_probs)
            own = (log_probs,)
        if not self.stopped and len(self.ids) < self.limit:
            return Piece(self.index, text, (token,), own)
        return Piece(self.index, text + self.text.finish(), (token,), own, self.response())

    def response(self) -> Response:
        """What the answer has come to."""
        return Response(
            text=self.text.text,
            generate_token_len=len(self.ids),
            input_token_len=len(self.prompt.ids),
            finish_reason="stop" if self.stopped else "length",
            token_ids=tuple(self.ids),
            logprobs=tuple(self.log_probs) if self.config.log_probs else None,
            pictures=self.costs,
        )


def _single_token(tokenizer, word: str) -> int:
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
    if len(ids) != 1:
        raise ValueError(f"bad word {word!r} is {len(ids)} tokens; only single tokens can be forbidden")
    return ids[0]
