"""Runs: the items of a benchmark are asked, several at a time, and every answer is kept as soon as it is there.

In: items and a `Chat` (a checkpoint in this process, workers, or a server). Out: the files of `run_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.completion import Chat, ChatRequestError
from paddle_internvl.evaluation.conversation import messages_of
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.pictures import open_pictures
from paddle_internvl.evaluation.prompts import prediction, render
from paddle_internvl.evaluation.run_files import Row, RunFiles


@dataclass(frozen=True)
class AskSettings:
    """Settings of the prompts and answers of a run.

    Attributes:
        style: family of the checkpoint, one of `prompts.STYLES`.
        rules: toolkit of the prompts and scores, one of `prompts.RULES`; None: the one whose format the data has.
        chain_of_thought: VLMEvalKit's USE_COT=1, upstream's `--cot`.
        max_new_tokens: most tokens of an answer; None: the benchmark's.
    """

    style: str = "InternVL2_5"
    rules: str | None = None
    chain_of_thought: bool = False
    max_new_tokens: int | None = None


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
    done: int
    cut: int
    failures: dict[Index, str]


def ask_items(
    benchmark: Benchmark,
    items: Sequence[Item],
    chat: Chat,
    settings: AskSettings,
    files: RunFiles,
    concurrency: int,
    as_urls: bool = False,
    on_progress: Callable[[RunCounts], None] = lambda counts: None,
) -> RunCounts:
    """Ask the items that have no answer yet.

    Items of the same pictures are asked one after another, so that they share the prefix of their KV cache.

    Args:
        benchmark: of the items.
        items: rows of the data.
        chat: answers.
        settings: of the prompts and answers.
        files: that answers are kept in.
        concurrency: rows asked at a time.
        as_urls: see `messages_of`.
        on_progress: called before the first row and after every row.
    Raises:
        EndpointUnavailableError: no request gets an answer.
        PromptError: see `render`, `messages_of`.
    """
    rows = files.rows()
    missing = _by_pictures([item for item in items if item.index not in rows])
    done = [row for item in items if (row := rows.get(item.index))]
    counts = RunCounts(len(items), len(done), sum(row.finish_reason == "length" for row in done), {})
    on_progress(counts)

    def answer(item: Item) -> Row:
        prompt = render(item, benchmark, settings.style, settings.rules, settings.chain_of_thought)
        messages = messages_of(prompt, open_pictures(prompt), as_urls)
        limit = settings.max_new_tokens or prompt.max_new_tokens
        completion = chat.complete(messages, temperature=0, max_tokens=limit)
        scored = prediction(completion.text, benchmark, settings.style, settings.rules, settings.chain_of_thought)
        return Row(item.index, prompt.text, completion.text, scored, completion.finish_reason)

    for item, future in _completed(answer, missing, concurrency):
        try:
            row = future.result()
        except ChatRequestError as error:
            counts.failures[item.index] = str(error)
        else:
            files.append(row)
            counts.done += 1
            counts.cut += row.finish_reason == "length"
        on_progress(counts)
    files.finish(items)
    return counts


def _by_pictures(items: Sequence[Item]) -> list[Item]:
    """The items in the order of the first item with the same pictures."""
    first: dict[tuple, int] = {}
    keys = [first.setdefault((item.pictures, item.clip), number) for number, item in enumerate(items)]
    return [item for _, item in sorted(zip(keys, items), key=lambda pair: pair[0])]


def _completed(
    function: Callable[[Item], Row], items: Sequence[Item], concurrency: int
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
