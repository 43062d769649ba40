"""Batch inference: a file of questions to a file of answers, in this process or in workers of Ray.

In: rows of IN and a checkpoint. Out: rows of OUT in the same order, written as they are answered. An invalid row gives
one error row.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.checkpoints.fingerprint import fingerprint
from paddle_internvl.engine.config import QUANTIZATIONS
from paddle_internvl.engine.response import Response
from paddle_internvl.prompt.messages import Dialogue
from paddle_internvl.scale import cluster, rows

_MAX_RETRIES = 3  # restarts of a worker that dies, and retries of its batch


@dataclass(frozen=True)
class Job:
    """Settings of a batch run.

    Args:
        checkpoint: folder or hub id.
        folder: that paths of media are relative to.
        generation: default generation settings of a row.
        backend: fields of an `EngineConfig`.
        system, thinking, keep_thoughts: see `pipeline`.
    """

    checkpoint: str
    folder: Path
    generation: Mapping = field(default_factory=dict)
    backend: Mapping = field(default_factory=dict)
    system: str | None = None
    thinking: bool = False
    keep_thoughts: bool = True


class BatchWorker:
    """A worker: one pipeline that answers batches of rows.

    Args:
        job: settings.
        pipe: a `Pipeline`; None: of the job's checkpoint.
    """

    def __init__(self, job: Job, pipe: Callable | None = None):
        self._job, self._pipe = job, pipe or _load(job)

    def __call__(self, batch: Mapping[str, Sequence]) -> dict[str, list]:
        """Answer a batch of Ray Data: columns 'number' and 'line' in, 'answer' out."""
        return {"answer": self.answer([int(number) for number in batch["number"]], batch["line"])}

    def answer(self, numbers: Sequence[int], lines: Sequence[bytes]) -> list[str]:
        """The lines of OUT for rows of IN.

        Args:
            numbers: of the rows.
            lines: of IN.
        """
        outcomes: list = [self._question(line) for line in lines]
        valid = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        for i, outcome in zip(valid, self._ask([outcomes[i] for i in valid])):
            outcomes[i] = outcome
        names = [rows.name_of(line, number) for number, line in zip(numbers, lines)]
        return [rows.answer_line(name, outcome) for name, outcome in zip(names, outcomes)]

    def _question(self, line: bytes):
        """Conversation and generation settings of a row, or its error."""
        try:
            dialogue, generation = rows.parse(line, self._job.folder)
        except Exception as error:
            return error
        return dialogue, {**self._job.generation, **generation}

    def _ask(self, questions: Sequence[tuple[Dialogue, dict]]) -> list[Response | Exception]:
        """A response or error for each question. Where a batch fails, its halves are tried, down to the failing one."""
        if not questions:
            return []
        try:
            return self._pipe([dialogue for dialogue, _ in questions], [generation for _, generation in questions])
        except Exception as error:
            if len(questions) == 1:
                return [error]
        half = len(questions) // 2
        return self._ask(questions[:half]) + self._ask(questions[half:])


def _load(job: Job) -> Callable:
    from paddle_internvl import startup

    startup.import_paddle()
    from paddle_internvl.chat.pipeline import EngineConfig, pipeline

    return pipeline(
        job.checkpoint, EngineConfig(**job.backend), job.system, thinking=job.thinking, keep_thoughts=job.keep_thoughts
    )


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        total: rows of IN.
        done: rows of OUT, those of earlier runs included.
        failed: rows of OUT with an error.
    """

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
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Answer the rows of IN that OUT has no answer to yet; an OUT of other settings is moved aside.

    Args:
        source: IN.
        target: OUT.
        job: settings.
        workers: processes of Ray; 0: this process, without Ray.
        batch_size: rows that a worker answers together.
        address: of a Ray cluster; None: start one on this machine.
        on_progress: called before the first row and after every row.
    Raises:
        ValueError: OUT does not belong to IN.
        ImportError: Ray is not installed.
        ChildProcessError: workers died repeatedly; rows that are done stay in OUT.
    """
    lines = rows.read(source)
    with rows.appending(target, lines, _settings(job)) as (out, done, failed):
        progress = Progress(len(lines), done, failed)
        on_progress(progress)
        if done == len(lines):
            return progress
        todo = list(enumerate(lines))[done:]
        if workers == 0:
            answers = _in_process(job, todo, batch_size)
        else:
            answers = _on_ray(job, todo, batch_size, workers, address)
        for line in answers:
            out.write(line.encode() + b"\n")
            out.flush()
            progress.done += 1
            progress.failed += rows.failed(line)
            on_progress(progress)
    return progress


def _settings(job: Job) -> dict:
    """The settings that answers depend on, and a fingerprint of the model: of a folder's files, or the hub id."""
    folder, adapter = Path(job.checkpoint), job.backend.get("adapter")
    model = fingerprint(folder) if folder.is_dir() else job.checkpoint
    if adapter is not None:
        model = f"{model} {fingerprint(Path(adapter))}"
    backend = {name: job.backend.get(name) for name in ("max_num", "dtype", "device")}
    changed = {} if job.keep_thoughts else {"keep_thoughts": False}  # not named: the defaults
    changed |= {"thinking": True} if job.thinking else {}
    changed |= {name: True for name in QUANTIZATIONS.values() if job.backend.get(name)}
    return {"model": model, "system": job.system, **changed, **backend, **job.generation}


def _in_process(job: Job, todo: Sequence[tuple[int, bytes]], batch_size: int) -> Iterator[str]:
    worker = BatchWorker(job)
    for first in range(0, len(todo), batch_size):
        numbers, lines = zip(*todo[first : first + batch_size])
        yield from worker.answer(numbers, lines)


def _on_ray(
    job: Job, todo: Sequence[tuple[int, bytes]], batch_size: int, workers: int, address: str | None
) -> Iterator[str]:
    with cluster.joined(address, workers) as ray:
        from ray import data

        context = data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised
        items = [{"number": number, "line": line} for number, line in todo]
        # Ray delivers a block as a whole: one block for each batch, so that answers are written early
        questions = data.from_items(items, override_num_blocks=-(-len(items) // batch_size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray 2.60 deprecates `max_restarts` without a replacement
            answers = questions.map_batches(
                BatchWorker,
                fn_constructor_args=[job],
                batch_size=batch_size,
                compute=data.ActorPoolStrategy(size=workers),
                max_restarts=_MAX_RETRIES,
                max_task_retries=_MAX_RETRIES,
                **cluster.resources_per_process(ray, workers, job.backend.get("device")),
            )
        try:
            for row in answers.iter_rows():
                yield row["answer"]
        except ray.exceptions.RayError as error:
            raise ChildProcessError(
                f"the workers failed: {cluster.error_line(str(error)) or type(error).__name__}"
            ) from error
