"""Runs: items are asked, several at a time, and every answer is kept as soon as it is there.

In: items and a `Chat` (a checkpoint or a server). Out: a `Row` or a `Failure` for each item.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.completion import Chat, ChatRequestError
from paddle_internvl.evaluation.conversation import messages_of
from paddle_internvl.evaluation.interleaving import interleaved
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.pictures import open_pictures
from paddle_internvl.evaluation.prompts import Prompt, PromptError, prediction, render
from paddle_internvl.evaluation.run_files import Row, RunFiles
from paddle_internvl.scale.ordered_actors import batches

_GREEDY = {"temperature": 0}
_SAMPLING = {"Thinking": {"temperature": 0.6, "top_p": 0.95, "seed": 0}}  # by style: VLMEvalKit's; its seed is random
_GROUP = 8  # items of the same pictures that one thread asks


@dataclass(frozen=True)
class AskSettings:
    """Settings of the prompts and answers of a run.

    Attributes:
        style: family of the checkpoint, one of `benchmark.STYLES`.
        rules: toolkit of the prompts and scores, one of `benchmark.RULES`; None: the one whose format the data has.
        chain_of_thought: VLMEvalKit's USE_COT=1, upstream's `--cot`.
        max_new_tokens: limit of an answer; None: the benchmark's.
        frames: of a clip; None: the benchmark's.
    """

    style: str = "InternVL2_5"
    rules: str | None = None
    chain_of_thought: bool = False
    max_new_tokens: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Batch:
    """Items that a worker is asked.

    Attributes:
        benchmark: of the items.
        settings: of the prompts and answers.
        items: rows of the data.
    """

    benchmark: Benchmark
    settings: AskSettings
    items: Sequence[Item]


@dataclass(frozen=True)
class Failure:
    """An item without an answer.

    Attributes:
        index: of the item.
        reason: one line.
    """

    index: Index
    reason: str


@dataclass
class RunCounts:
    """Counts of a run.

    Attributes:
        total: rows to be answered.
        done: rows with an answer, those of earlier runs included.
        cut: answers that ended at the token limit.
        failures: reason by index of rows without an answer.
    """

    total: int
    done: int = 0
    cut: int = 0
    failures: dict[Index, str] = field(default_factory=dict)


class Worker:
    """Asks a model.

    Args:
        chat: the model.
        concurrency: items asked at a time, of different pictures.
        as_urls: see `messages_of`.
    """

    def __init__(self, chat: Chat, concurrency: int, as_urls: bool = False):
        self._chat, self._concurrency, self._as_urls = chat, concurrency, as_urls

    def __call__(self, batch: Batch) -> list[Row | Failure]:
        """The outcomes of a batch."""
        return list(self.outcomes(batch))

    def outcomes(self, batch: Batch) -> Iterator[Row | Failure]:
        """Outcomes as they are there.

        Items of the same pictures that follow each other are asked one after the other: the pictures are opened once,
        and later items find the earlier ones' prefix in the KV cache.

        Raises:
            EndpointUnavailableError: no request gets an answer.
        """
        groups = itertools.groupby(batch.items, key=_pictures_of)
        parts = (part for _, group in groups for part in batches(group, _GROUP))
        return interleaved((self._ask(batch, part) for part in parts), self._concurrency)

    def _ask(self, batch: Batch, items: Sequence[Item]) -> Iterator[Row | Failure]:
        pictures = None
        for item in items:
            try:
                prompt = prompt_of(item, batch.benchmark, batch.settings)
                pictures = open_pictures(prompt) if pictures is None else pictures
                outcome = self._answer(batch, prompt, pictures)
            except PromptError as error:
                outcome = Failure(item.index, error.reason)
            except ChatRequestError as error:
                outcome = Failure(item.index, str(error))
            yield outcome

    def _answer(self, batch: Batch, prompt: Prompt, pictures: list[Image.Image]) -> Row:
        settings = batch.settings
        thumbnail = True if settings.rules == "vlmevalkit" else None
        messages = messages_of(prompt, pictures, thumbnail, self._as_urls)
        limit = settings.max_new_tokens or prompt.max_new_tokens
        sampling = _SAMPLING.get(settings.style, _GREEDY)
        completion = self._chat.complete(messages, max_tokens=limit, **sampling)
        scored = prediction(completion.text, batch.benchmark, settings.style, settings.rules, settings.chain_of_thought)
        return Row(prompt.index, prompt.text, completion.text, scored, completion.finish_reason)


def prompt_of(item: Item, benchmark: Benchmark, settings: AskSettings) -> Prompt:
    """The prompt of an item. Errors: see `render`."""
    return render(item, benchmark, settings.style, settings.rules, settings.chain_of_thought, settings.frames)


def split(batch: Batch, size: int) -> Iterator[Batch]:
    """Parts of a batch of at most `size` items."""
    for first in range(0, len(batch.items), size):
        yield replace(batch, items=batch.items[first : first + size])


def keep(
    outcomes: Iterable[Row | Failure], files: RunFiles, counts: RunCounts, on_progress: Callable[[RunCounts], None]
) -> None:
    """Keep outcomes in the files of a run.

    Args:
        outcomes: of its items.
        files: that answers are appended to.
        counts: of the run; changed in place.
        on_progress: called before the first outcome and after every outcome.
    """
    on_progress(counts)
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            counts.failures[outcome.index] = outcome.reason
        else:
            files.append(outcome)
            counts.done += 1
            counts.cut += outcome.finish_reason == "length"
        on_progress(counts)


def by_pictures(items: Sequence[Item]) -> list[Item]:
    """The items in the order of the first item with the same pictures."""
    first: dict[tuple, int] = {}
    numbers = [first.setdefault(_pictures_of(item), number) for number, item in enumerate(items)]
    return [item for _, item in sorted(zip(numbers, items), key=lambda pair: pair[0])]


def _pictures_of(item: Item) -> tuple:
    return item.pictures, item.clip
