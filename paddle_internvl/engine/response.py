"""`Response`: an answer and its cost, with the names of LMDeploy's `Response`. Plain values, no model."""

from __future__ import annotations

import html
from dataclasses import dataclass

from paddle_internvl.prompt.tools import ToolCall


@dataclass(frozen=True)
class PictureCost:
    """Cost of one picture or frame.

    Attributes:
        tiles: tiles.
        tokens: visual tokens.
    """

    tiles: int
    tokens: int


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        text: the answer; of a stream, its new text.
        generate_token_len: tokens generated, the end token included.
        input_token_len: tokens of the prompt, visual tokens included.
        finish_reason: 'stop' (an end token or stop string), 'tool_calls' (the same, behind tool calls) or 'length' (the
            limit); None before the end of a stream.
        token_ids: tokens generated.
        logprobs: {id: log-probability} of each token, the sampled id first; None if not requested.
        index: number of the prompt in a batch.
        pictures: cost of each picture, in order.
        alternatives: with n > 1, the other answers.
        reasoning: thoughts, where they were requested (`thinking=True`), without `<think>` and `</think>`; of a stream,
            the new ones; None: there are none.
        tool_calls: calls of the functions given as `tools`; of a stream, all calls in its last response.
    """

    text: str
    generate_token_len: int
    input_token_len: int
    finish_reason: str | None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[dict[int, float], ...] | None = None
    index: int = 0
    pictures: tuple[PictureCost, ...] = ()
    alternatives: tuple[Response, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> dict:
        """The answer as the assistant's message of the next prompt, its thoughts and tool calls included."""
        thoughts = {} if self.reasoning is None else {"reasoning_content": self.reasoning}
        calls = {"tool_calls": [call.openai for call in self.tool_calls]} if self.tool_calls else {}
        return {"role": "assistant", "content": self.text, **thoughts, **calls}

    def _repr_html_(self) -> str:
        """The answer and its cost, in a notebook."""
        cost = f"{self.input_token_len} + {self.generate_token_len} tokens"
        if self.pictures:
            cost += f", {len(self.pictures)} pictures of {sum(p.tiles for p in self.pictures)} tiles"
        ending = "" if self.finish_reason in ("stop", "tool_calls") else f", ended by {self.finish_reason}"
        text = _lines(self.text)
        if self.reasoning is not None:
            text = f"<details><summary>thoughts</summary>{_lines(self.reasoning.strip())}</details>{text}"
        for call in self.tool_calls:
            text += f"<div><code>{_lines(f'{call.name}({call.arguments})')}</code></div>"
        return f"<div>{text}<div style='color:gray;font-size:smaller'>{cost}{ending}</div></div>"


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


class History(list):
    """A conversation's (question, answer) pairs: a list that prints as a conversation."""

    def __str__(self) -> str:
        return "\n".join(f"User: {question}\nAssistant: {answer}" for question, answer in self)

    def _repr_html_(self) -> str:
        turns = "".join(
            f"<p><b>User:</b> {html.escape(question)}<br><b>Assistant:</b> {html.escape(answer)}</p>"
            for question, answer in self
        )
        return f"<div>{turns}</div>"
