"""Runs: items are asked, several at a time, and every answer is kept as soon as it is there.

In: items and a `Chat` (a checkpoint or a server). Out: a `Row` or a `Failure` for each item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.completion import Chat, ChatRequestError
from paddle_internvl.evaluation.conversation import messages_of
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.pictures import open_pictures
from paddle_internvl.evaluation.prompts import PromptError, prediction, render
from paddle_internvl.evaluation.run_files import Row, RunFiles


@dataclass(frozen=True)
class AskSettings:
    """Settings of the prompts and answers of a run.

    Attributes:
        style: family of the checkpoint, one of `prompts.STYLES`.
        rules: toolkit of the prompts and scores, one of `prompts.RULES`; None: the one whose format the data has.
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
        concurrency: items asked at a time.
        as_urls: see `messages_of`.
    """

    def __init__(self, chat: Chat, concurrency: int, as_urls: bool = False):
        self._chat, self._concurrency, self._as_urls = chat, concurrency, as_urls

    def __call__(self, batch: Batch) -> list[Row | Failure]:
        """The outcomes of a batch."""
        return list(self.outcomes(batch))

    def outcomes(self, batch: Batch) -> Iterator[Row | Failure]:
        """Outcomes as they are there.

        Raises:
            EndpointUnavailableError: no request gets an answer.
        """
        for item, future in _completed(lambda item: self._answer(batch, item), batch.items, self._concurrency):
            try:
                yield future.result()
            except (ChatRequestError, PromptError) as error:
                yield Failure(item.index, str(error))

    def _answer(self, batch: Batch, item: Item) -> Row:
        benchmark, settings = batch.benchmark, batch.settings
        form = settings.style, settings.rules, settings.chain_of_thought
        prompt = render(item, benchmark, *form, settings.frames)
        thumbnail = True if settings.rules == "vlmevalkit" else None
        messages = messages_of(prompt, open_pictures(prompt), thumbnail, self._as_urls)
        limit = settings.max_new_tokens or prompt.max_new_tokens
        completion = self._chat.complete(messages, temperature=0, max_tokens=limit)
        scored = prediction(completion.text, benchmark, *form)
        return Row(item.index, prompt.text, completion.text, scored, completion.finish_reason)


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
    """The items in the order of the first item with the same pictures: they share the prefix of their KV cache."""
    first: dict[tuple, int] = {}
    keys = [first.setdefault((item.pictures, item.clip), number) for number, item in enumerate(items)]
    return [item for _, item in sorted(zip(keys, items), key=lambda pair: pair[0])]


def _completed(
    function: Callable[[Item], Row], items: Iterable[Item], concurrency: int
) -> Iterator[tuple[Item, Future[Row]]]:
    """Items and their finished calls, as they finish; at most `concurrency` calls are under way."""
    remaining, pending = iter(items), {}
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while len(pending) < concurrency and (item := next(remaining, None)) is not None:
                    pending[pool.submit(function, item)] = item
                if not pending:
                    return
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield pending.pop(future), future
        finally:
            for future in pending:
                future.cancel()
