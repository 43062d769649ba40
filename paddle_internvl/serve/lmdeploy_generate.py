"""LMDeploy's /generate: a text or token ids without a template, continued.

In: LMDeploy's `GenerateReqInput` (lmdeploy/serve/openai/protocol.py). Out: its `GenerateReqOutput`, whole or as the
pieces of a stream.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from paddle_internvl.serve.completions import CompletionRun
from paddle_internvl.serve.schema import Count, Generation, Prompt, Temperature, Text, refuse_unsupported

# fields of features that are not supported -> values that are accepted, because they ask for nothing
_UNSUPPORTED = {
    "image_data": ([],),  # /v1/chat/completions takes pictures
    "session_id": (-1,),
    "spaces_between_special_tokens": (True,),
    "return_routed_experts": (False,),
    "mm_processor_kwargs": ({},),
    "n": (1,),
}


class GenerateRequest(Generation):
    """Body of /generate; the defaults are LMDeploy's: it samples."""

    model: Text | None = None
    prompt: Prompt | None = None
    input_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1 << 20)] | None = None
    max_tokens: Count | None = 128
    temperature: Temperature | None = 1.0
    return_logprob: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_more(cls, body):
        return refuse_unsupported(body, _UNSUPPORTED)

    @model_validator(mode="after")
    def _require_one(self):
        if (self.prompt is None) == (self.input_ids is None):
            raise PydanticCustomError("prompt", "give either prompt or input_ids", {"param": "prompt"})
        return self

    @property
    def wants_logprobs(self) -> bool:
        """See `Generation`."""
        return bool(self.return_logprob)


async def pieces_of(run: CompletionRun, with_log_probs: bool) -> AsyncIterator[dict]:
    """The pieces of an answer in LMDeploy's form.

    Args:
        run: of one answer.
        with_log_probs: whether the log-probability of each token is in `meta_info`.
    """
    async with aclosing(run.pieces) as pieces:
        async for piece in pieces:
            reason = None if piece.response is None else {"type": piece.response.finish_reason}
            chances = [[next(iter(step.values())), token] for token, step in zip(piece.tokens, piece.log_probs)]
            meta = {
                "prompt_tokens": run.usage["prompt_tokens"], "completion_tokens": run.usage["completion_tokens"],
                "finish_reason": reason, "output_token_logprobs": chances if with_log_probs else None,
            }  # fmt: skip
            yield {"text": piece.text, "output_ids": list(piece.tokens), "meta_info": meta}


async def whole(run: CompletionRun, with_log_probs: bool) -> dict:
    """The whole answer in LMDeploy's form. Arguments: see `pieces_of`."""
    pieces = [piece async for piece in pieces_of(run, with_log_probs)]
    meta = pieces[-1]["meta_info"]
    if with_log_probs:
        steps = [piece["meta_info"]["output_token_logprobs"] for piece in pieces]
        meta["output_token_logprobs"] = list(itertools.chain.from_iterable(steps))
    text = "".join(piece["text"] for piece in pieces)
    ids = list(itertools.chain.from_iterable(piece["output_ids"] for piece in pieces))
    return {"text": text, "output_ids": ids, "meta_info": meta}
