"""Prompts to answers: the one place where ids, pictures' tiles, decoding steps and text meet.

In: prompts (ids with room for pictures, and the pictures' tiles) and settings. Out: pieces of text as they are made,
and `Response`s. Who has questions in another form, `chat` and `dialogue`, makes prompts of them; not known here is how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import paddle

from paddle_internvl.generation.beam import beam_search
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import FINISHED, Step, generate_steps
from paddle_internvl.generation.streaming import TextStream
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
from paddle_internvl.response import PictureCost, Response


@dataclass(frozen=True)
class Prompt:
    """What the decoder is asked.

    Attributes:
        ids: token ids, `<IMG_CONTEXT>` where visual tokens belong. pictures: float32 tiles [T, 3, S, S] of each, in
            order. stop: the template's token that ends an answer.
    """

    ids: list[int]
    pictures: list[np.ndarray]
    stop: str


class ContextOverflowError(ValueError):
    """A prompt that leaves no room for an answer."""


@dataclass
class _Row:
    """One answer in the making."""

    prompt: Prompt
    limit: int
    text: TextStream
    ids: list[int] = field(default_factory=list)
    log_probs: list[dict[int, float]] = field(default_factory=list)


class Answers:
    """Answers to a batch of prompts, `config.n` to each. Iterate over it once, then ask for `responses`.

    Args:
        model: an `InternVLChatModel`. tokenizer: its. context_length: the most tokens of prompt and answer together;
            answers end there. None: no such limit.
    Raises:
        ContextOverflowError: a prompt as long as context_length. ValueError: a bad word that is not one token.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompts: Sequence[Prompt],
        config: GenerationConfig,
        context_length: int | None = None,
    ):
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts
        ends = {tokenizer.convert_tokens_to_ids(prompt.stop) for prompt in prompts}
        bad = {_single_token(tokenizer, word) for word in config.bad_words}
        self.config = replace(
            config, eos_token_id=(*config.eos_token_id, *ends), bad_token_ids=(*config.bad_token_ids, *bad)
        )
        self.rows = [self._row(prompt, context_length) for prompt in prompts for _ in range(config.n)]

    def _row(self, prompt: Prompt, context_length: int | None) -> _Row:
        c, limit = self.config, self.config.max_new_tokens
        if context_length is not None:
            if len(prompt.ids) >= context_length:
                raise ContextOverflowError(self._overflow(prompt, context_length))
            limit = min(limit, context_length - len(prompt.ids))
        text = TextStream(
            lambda ids: self.tokenizer.decode(ids, skip_special_tokens=c.skip_special_tokens),
            (prompt.stop, *c.stop_strings),
            kept=c.stop_strings if c.include_stop_str_in_output else (),
        )
        return _Row(prompt, limit, text)

    def _overflow(self, prompt: Prompt, context_length: int) -> str:
        tiles = sum(map(len, prompt.pictures))
        visual = tiles * self.model.num_image_token
        advice = "lower max_num or max_total_tiles, or send fewer pictures" if tiles else "shorten it"
        return (
            f"prompt has {len(prompt.ids)} tokens ({visual} from {tiles} tiles of {len(prompt.pictures)} pictures); "
            f"the limit is {context_length}, the answer included; {advice}"
        )

    def __iter__(self) -> Iterator[list[tuple[int, str]]]:
        """Per step, the token and the new text of every row; (FINISHED, '') of rows that have ended."""
        self.model.img_context_token_id = self.tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
        if self.config.num_beams > 1:
            yield self._beams()
        else:
            for step in self._steps():
                yield [self._take(row, i, step) for i, row in enumerate(self.rows)]
        rest = [row.text.finish() for row in self.rows]
        if any(rest):
            yield [(FINISHED, piece) for piece in rest]

    def _take(self, row: _Row, i: int, step: Step) -> tuple[int, str]:
        token = int(step.ids[i])
        if token == FINISHED:
            return FINISHED, ""
        row.ids.append(token)
        if step.log_probs is not None:
            row.log_probs.append({token: float(step.log_probs[i]), **(step.top[i] if step.top else {})})
        return token, row.text.push(token)

    def _inputs(self) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Embeddings [B, L, D] of the prompts, padded on the left, and the mask [B, L] (None: nothing is padded)."""
        length = max(len(prompt.ids) for prompt in self.prompts)
        ids = np.full((len(self.prompts), length), self.tokenizer.pad_token_id, np.int64)
        mask = np.zeros((len(self.prompts), length), bool)
        for row, prompt in enumerate(self.prompts):
            ids[row, length - len(prompt.ids) :] = prompt.ids
            mask[row, length - len(prompt.ids) :] = True
        pictures = [tiles for prompt in self.prompts for tiles in prompt.pictures]
        embeds = self.model.embed(paddle.to_tensor(ids), self.model.visual_tokens(pictures))
        return embeds, None if mask.all() else paddle.to_tensor(mask)

    def _steps(self) -> Iterator[Step]:
        with paddle.no_grad():
            embeds, mask = self._inputs()
            if self.config.n > 1:
                rows = paddle.arange(len(self.prompts)).repeat_interleave(self.config.n)
                embeds = embeds.index_select(rows, axis=0)
                mask = None if mask is None else mask.astype("int32").index_select(rows, axis=0)
        config = replace(self.config, max_new_tokens=max(row.limit for row in self.rows))

        def ended(row: int, generated: list[int]) -> bool:
            return self.rows[row].text.stopped or len(generated) >= self.rows[row].limit

        return generate_steps(self.model.language_model, embeds, mask, config, ended)

    def _beams(self) -> list[tuple[int, str]]:
        with paddle.no_grad():
            embeds, mask = self._inputs()
        config = replace(self.config, max_new_tokens=min(row.limit for row in self.rows))
        for row, (ids, _) in zip(self.rows, beam_search(self.model.language_model, embeds, mask, config)):
            row.ids = ids
        return [(row.ids[-1], "".join(map(row.text.push, row.ids))) for row in self.rows]

    def responses(self) -> list[Response]:
        """One response to each prompt, complete once the iteration is over."""
        single = [self._response(i, row) for i, row in enumerate(self.rows)]
        n = self.config.n
        return [replace(single[i], alternatives=tuple(single[i + 1 : i + n])) for i in range(0, len(single), n)]

    def _response(self, i: int, row: _Row) -> Response:
        ended = row.text.stopped or (row.ids and row.ids[-1] in self.config.eos_token_id and not self.config.ignore_eos)
        n = self.model.num_image_token
        return Response(
            text=row.text.text,
            generate_token_len=len(row.ids),
            input_token_len=len(row.prompt.ids),
            finish_reason="stop" if ended else "length",
            token_ids=tuple(row.ids),
            logprobs=tuple(row.log_probs) if self.config.log_probs else None,
            index=i // self.config.n,
            pictures=tuple(PictureCost(len(tiles), len(tiles) * n) for tiles in row.prompt.pictures),
        )


def _single_token(tokenizer, word: str) -> int:
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word))
    if len(ids) != 1:
        raise ValueError(f"bad word {word!r} is {len(ids)} tokens; only single tokens can be forbidden")
    return ids[0]
