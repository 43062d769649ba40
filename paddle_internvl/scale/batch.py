"""Files of questions to files of answers, by one process or by a pool of Ray's.

In: IN's rows and a checkpoint. Out: OUT's, in the same order, written as they are there. One bad row costs one row.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.engine.response import Response
from paddle_internvl.scale import cluster, rows

_LIVES = 3  # how often a worker that dies is started again, and what it was at is tried again
_LONGEST_REASON = 200  # characters


@dataclass(frozen=True)
class Job:
    """What every row is answered by.

    Args:
        checkpoint: folder or hub id. folder: that paths of media are relative to. generation: settings of rows that
            name none of their own. backend: fields of an `EngineConfig`. system: see `pipeline`.
    """

    checkpoint: str
    folder: Path
    generation: Mapping = field(default_factory=dict)
    backend: Mapping = field(default_factory=dict)
    system: str | None = None


class Answerer:
    """A pipeline that answers batches of rows: what a worker is."""

    def __init__(self, job: Job):
        from paddle_internvl import startup

        startup.import_paddle()
        from paddle_internvl.chat.pipeline import EngineConfig, pipeline

        self._job = job
        self._pipe = pipeline(job.checkpoint, EngineConfig(**job.backend), job.system)

    def __call__(self, batch: Mapping[str, Sequence]) -> dict[str, list]:
        """Ray Data's form: columns 'number' and 'line' in, 'answer' out."""
        return {"answer": self.answer([int(number) for number in batch["number"]], batch["line"])}

    def answer(self, numbers: Sequence[int], lines: Sequence[str]) -> list[str]:
        """The lines of OUT about some rows of IN."""
        outcomes: list = [self._question(line) for line in lines]
        good = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        for i, outcome in zip(good, self._ask([outcomes[i] for i in good])):
            outcomes[i] = outcome
        names = [rows.name_of(line, number) for number, line in zip(numbers, lines)]
        return [rows.answer_line(name, outcome) for name, outcome in zip(names, outcomes)]

    def _question(self, line: str):
        """Messages and settings of a row, or why it has none."""
        try:
            messages, generation = rows.parse(line, self._job.folder)
        except ValueError as error:
            return error
        return messages, {**self._job.generation, **generation}

    def _ask(self, questions: Sequence[tuple[list[dict], dict]]) -> list[Response | Exception]:
        """An outcome for each. Where they can't be answered together, each half is tried alone, down to the one that
        is at fault."""
        if not questions:
            return []
        try:
            return self._pipe([messages for messages, _ in questions], [generation for _, generation in questions])
        except Exception as error:
            if len(questions) == 1:
                return [error]
        half = len(questions) // 2
        return self._ask(questions[:half]) + self._ask(questions[half:])


@dataclass
class Count:
    """Rows of a run: all, done (of an earlier run, too), and failed among these."""

    total: int
    done: int
    failed: int


def run(
    source: Path,
    target: Path,
    job: Job,
    workers: int,
    batch_size: int,
    address: str | None = None,
    told: Callable[[Count], None] = lambda count: None,
) -> Count:
    """Answer the rows of IN that OUT has no answer to yet.

    Args:
        source, target: IN, OUT. workers: processes under Ray; 0: this one, without Ray. batch_size: rows that a worker
            answers together. address: of a Ray cluster; None: one of this machine. told: is given the count after
            every row, and before the first.
    Raises:
        ValueError: files that do not go together. ImportError: Ray is not installed. ChildProcessError: workers died
        again and again; what is done stays done.
    """
    lines = rows.read(source)
    with rows.appending(target, lines) as (out, done, failed):
        count = Count(len(lines), done, failed)
        told(count)
        if done == len(lines):
            return count
        todo = list(enumerate(lines))[done:]
        made = _here(job, todo, batch_size) if workers == 0 else _by_ray(job, todo, batch_size, workers, address)
        for line in made:
            out.write(line.encode() + b"\n")
            out.flush()
            count.done += 1
            count.failed += rows.failed(line)
            told(count)
    return count


def _here(job: Job, todo: Sequence[tuple[int, str]], batch_size: int) -> Iterator[str]:
    answerer = Answerer(job)
    for first in range(0, len(todo), batch_size):
        numbers, lines = zip(*todo[first : first + batch_size])
        yield from answerer.answer(numbers, lines)


def _by_ray(
    job: Job, todo: Sequence[tuple[int, str]], batch_size: int, workers: int, address: str | None
) -> Iterator[str]:
    with cluster.joined(address, workers) as ray:
        from ray import data

        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong is raised
        items = [{"number": number, "line": line} for number, line in todo]
        # A block is done, and written, as a whole: a block for each batch
        asked = data.from_items(items, override_num_blocks=-(-len(items) // batch_size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray 2.60 has no other way to limit restarts than the one it warns of
            answered = asked.map_batches(
                Answerer,
                fn_constructor_args=[job],
                batch_size=batch_size,
                compute=data.ActorPoolStrategy(size=workers),
                max_restarts=_LIVES,
                max_task_retries=_LIVES,
                **cluster.share(ray, workers, job.backend.get("device")),
            )
        try:
            for row in answered.iter_rows():
                yield row["answer"]
        except ray.exceptions.RayError as error:
            raise ChildProcessError(f"the workers failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line of what Ray tells, where the error behind it stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else type(error).__name__
