"""Answers to many requests, in their order: by a pipeline in this process, an endpoint, or workers of Ray.

In: `AnswerRequest`s. Out: an iterator of texts; for a request that an endpoint refuses, its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from paddle_internvl.curation.prompt_messages import endpoint_messages
from paddle_internvl.evaluation.completion import Chat, ChatRequestError
from paddle_internvl.evaluation.ordered_map import ordered_map
from paddle_internvl.scale.ordered_actors import batches


@dataclass(frozen=True)
class AnswerRequest:
    """A request for one answer.

    Attributes:
        messages: OpenAI-style, as `prompt_messages` makes them for a pipeline.
        seed: of the sampling.
    """

    messages: list[dict]
    seed: int


Answers = Callable[[Iterable[AnswerRequest]], Iterator[str | ChatRequestError]]


@dataclass(frozen=True)
class PipelineWorker:
    """A pipeline that answers batches of requests; equal prompts share their prefix and their pictures.

    Attributes:
        pipe: a `Pipeline`.
        generation: settings of every answer but the seed.
    """

    pipe: Callable
    generation: Mapping = field(default_factory=dict)

    def __call__(self, requests: Sequence[AnswerRequest]) -> list[str]:
        """Texts of the answers to a batch."""
        configs = [{**self.generation, "seed": request.seed} for request in requests]
        return [response.text for response in self.pipe([request.messages for request in requests], configs)]

    def __enter__(self) -> PipelineWorker:
        return self

    def __exit__(self, *_exception) -> None:
        self.pipe.close()


def pipeline_answers(worker: Callable[[Sequence[AnswerRequest]], list], batch_size: int) -> Answers:
    """Answers of a worker in this process, batch by batch."""
    return lambda requests: (text for batch in batches(requests, batch_size) for text in worker(batch))


def endpoint_answers(chat: Chat, generation: Mapping, concurrency: int) -> Answers:
    """Answers of an endpoint, several requests at a time.

    Args:
        chat: a `ChatEndpoint`.
        generation: fields of every request but the seed.
        concurrency: requests at a time.
    """

    def answer(request: AnswerRequest) -> str | ChatRequestError:
        try:
            return chat.complete(endpoint_messages(request.messages), **generation, seed=request.seed).text
        except ChatRequestError as error:
            return error

    return lambda requests: ordered_map(answer, requests, concurrency)
