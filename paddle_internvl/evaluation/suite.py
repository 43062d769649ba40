"""`evaluate`: a model on several benchmarks: answers asked, kept and scored."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paddle_internvl.checkpoints.fingerprint import fingerprint
from paddle_internvl.checkpoints.folder_checks import adapter_folder, chat_folder
from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.chats import chat_of, is_endpoint
from paddle_internvl.evaluation.completion import Chat
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.readers import default_rules, read_items
from paddle_internvl.evaluation.reuse import reused_rows
from paddle_internvl.evaluation.run import (
    AskSettings,
    Batch,
    Failure,
    RunCounts,
    Worker,
    by_pictures,
    keep,
    prompt_of,
    split,
)
from paddle_internvl.evaluation.run_files import Row, RunError, RunFiles
from paddle_internvl.evaluation.scoring import require_scorer, score_items
from paddle_internvl.evaluation.user_benchmarks import find_benchmark
from paddle_internvl.jsonl import complete_file
from paddle_internvl.scale.ordered_actors import map_batches

_DEFAULTS = AskSettings()
_ENGINE = {"vision_max_batch_size": 8, "prefill_chunk": 2048}  # nobody waits for a token: large steps
# fields of the `EngineConfig` that answers depend on
_WEIGHTS = ("dtype", "load_in_8bit", "load_in_4bit", "quantize_head", "int8_activations")
_SCORING_FIELDS = ("scorers", "judge", "rows", "cards", "file", "headline")  # of a `Benchmark`
_DATA_ROOT = "LMUData"  # VLMEvalKit's environment variable


@dataclass(frozen=True)
class Job:
    """A benchmark of a run.

    Attributes:
        benchmark: its row of the table.
        path: file or folder of the data.
        items: all rows of the data.
        limit: number of rows that are asked; None: all.
        settings: of prompts and answers.
    """

    benchmark: Benchmark
    path: Path
    items: Sequence[Item]
    settings: AskSettings
    limit: int | None = None

    @property
    def selected(self) -> Sequence[Item]:
        """The rows that are asked."""
        return self.items[: self.limit]


def plan(
    data: Sequence[str],
    data_root: Path | None = None,
    settings: AskSettings = _DEFAULTS,
    limit: int | None = None,
    benchmarks: Path | None = None,
) -> list[Job]:
    """The benchmarks of a run with their items, read and checked before a model is loaded.

    Args:
        data: `NAME` or `NAME=PATH` of each benchmark.
        data_root: folder of the files; None: $LMUData, else ~/LMUData.
        settings: rules None: by the form of each benchmark's data.
        limit: first rows of each benchmark; None: all.
        benchmarks: file of the user's benchmarks; see `all_benchmarks`.
    Raises:
        ValueError: an unknown benchmark, or faulty data.
    """
    root = data_root or Path(os.environ.get(_DATA_ROOT) or "~/LMUData").expanduser()
    jobs = []
    for word in data:
        name, _, path = word.partition("=")
        benchmark = find_benchmark(name, benchmarks)
        if any(job.benchmark.name == name for job in jobs):
            raise ValueError(f"{name} is named twice")
        if not path and not root.is_dir():
            raise ValueError(f"{root}: no such folder; name that of the files by --data-root or ${_DATA_ROOT}")
        place = Path(path) if path else root
        rules = settings.rules or default_rules(benchmark, place)
        items = list(read_items(benchmark, place, rules))
        jobs.append(Job(benchmark, place, items, replace(settings, rules=rules), limit))
    return jobs


def evaluate(
    model: str | Path | Chat,
    data: Sequence[str],
    *,
    data_root: Path | None = None,
    work_dir: str | Path = "outputs",
    name: str | None = None,
    settings: AskSettings = _DEFAULTS,
    limit: int | None = None,
    benchmarks: Path | None = None,
    scored: bool = True,
    reuse: Path | None = None,
    overwrite: bool = False,
    concurrency: int = 32,
    workers: int | None = None,
    ray_address: str | None = None,
    judge: Judge | None = None,
    on_progress: Callable[[str, RunCounts], None] = lambda benchmark, counts: None,
    endpoint: Mapping | None = None,
    **backend,
) -> dict[str, dict]:
    """Evaluate a model on benchmarks. A run that was interrupted is continued.

    Args:
        model: checkpoint folder, hub id, URL of an OpenAI-compatible server, or a `Chat`.
        data: see `plan`.
        data_root: see `plan`.
        work_dir: folder of the runs of all models.
        name: of the model in the files; None: the last part of `model`.
        settings: of the prompts and answers.
        limit: see `plan`.
        benchmarks: see `plan`.
        scored: False: answers only.
        reuse: VLMEvalKit's predictions that are taken over: a file, or a folder of `<name>_<benchmark>.xlsx` (or .tsv).
        overwrite: leave the answers of earlier runs.
        concurrency: rows asked at a time, of each worker.
        workers: processes of Ray, each with a model; None: this process, without Ray.
        ray_address: of a Ray cluster; None: start one on this machine.
        judge: decides rows that rules can't.
        on_progress: called with the benchmark's name and the counts of its run.
        endpoint: `model` and `key` of a server.
        backend: fields of the `EngineConfig` of a checkpoint, whose defaults here favour throughput over latency.
    Returns:
        By benchmark: the document of `score`, or `benchmark`, `scored` and `expected` without scores; and `failures`,
        the reason by index of rows without an answer.
    Raises:
        ValueError: an unknown benchmark, faulty data, or a run of other settings in `work_dir`.
        EndpointUnavailableError: no request gets an answer.
    """
    is_checkpoint = isinstance(model, (str, Path)) and not is_endpoint(str(model))
    if is_checkpoint:
        chat_folder(str(model), weights=Path(model).exists())
    if backend.get("adapter"):
        backend["adapter"] = str(adapter_folder(backend["adapter"]))
    if workers and not is_checkpoint:
        raise ValueError("workers load a checkpoint; name its folder or hub id")
    jobs = plan(data, data_root, settings, limit, benchmarks)
    for job in jobs if scored else ():
        require_scorer(job.benchmark, job.settings.rules)
    name = name or Path(str(getattr(model, "model", model)).rstrip("/")).name
    weights = {field: backend[field] for field in _WEIGHTS if backend.get(field)}
    recorded = {"model": _identity(model, endpoint, backend), **weights}
    runs = []
    for job in jobs:
        fields = {**recorded, **asdict(job.settings), "benchmark": _prompt_fields(job.benchmark)}
        files = RunFiles(Path(work_dir) / name, name, job.benchmark.name, fields, overwrite)
        for row in reused_rows(reuse, name, job.benchmark, job.items) if reuse else ():
            files.append(row)
        runs.append((job, files, _unanswered(job, files)))
    batches = [batch for *_, batch in runs if batch.items]
    engine = {**_ENGINE, **backend}
    with contextlib.ExitStack() as stack:
        if not batches:
            outcomes = iter(())
        elif workers:
            outcomes = stack.enter_context(
                contextlib.closing(_ray_outcomes(str(model), batches, concurrency, workers, ray_address, engine))
            )
        else:
            chat = model
            if isinstance(model, (str, Path)):
                chat = stack.enter_context(contextlib.closing(chat_of(str(model), **(endpoint or {}), **engine)))
            worker = Worker(chat, concurrency, as_urls=isinstance(model, (str, Path)) and not is_checkpoint)
            outcomes = itertools.chain.from_iterable(map(worker.outcomes, batches))
        return {
            job.benchmark.name: _run(job, files, batch, outcomes, scored, judge, on_progress)
            for job, files, batch in runs
        }


def _unanswered(job: Job, files: RunFiles) -> Batch:
    """The rows that have no answer yet.

    Raises:
        RunError: an answered row has another prompt now: the data was edited.
    """
    for item in job.items:
        row = files.rows.get(item.index)
        if row is not None and row.prompt and row.prompt != prompt_of(item, job.benchmark, job.settings).text:
            raise RunError(
                f"{files.journal}: row {item.index} was answered to another prompt; --overwrite starts anew, "
                "--work-dir names another folder"
            )
    missing = [item for item in job.selected if item.index not in files.rows]
    return Batch(job.benchmark, job.settings, by_pictures(missing))


def _ray_outcomes(
    model: str, batches: Sequence[Batch], concurrency: int, workers: int, address: str | None, backend: Mapping
) -> Iterator[Row | Failure]:
    """Outcomes of batches in their order, by processes of Ray."""
    folder = str(Path(model).resolve()) if Path(model).exists() else model  # workers start elsewhere
    make = functools.partial(_checkpoint_worker, folder, concurrency, backend)
    parts = (part for batch in batches for part in split(batch, 2 * concurrency))
    for outcomes in map_batches(make, parts, workers, address, backend.get("device")):
        yield from outcomes


def _prompt_fields(benchmark: Benchmark) -> dict:
    """The fields of a benchmark that answers depend on, which a user's row may change."""
    return {name: value for name, value in asdict(benchmark).items() if name not in _SCORING_FIELDS}


def _checkpoint_worker(folder: str, concurrency: int, backend: Mapping) -> Worker:
    """A worker in a process of Ray."""
    return Worker(chat_of(folder, **backend), concurrency)


def _identity(model: str | Path | Chat, endpoint: Mapping | None, backend: Mapping) -> str:
    """The model that answers depend on: its files, or its address."""
    if not isinstance(model, (str, Path)):
        return model.model
    if is_endpoint(str(model)):
        return f"{model} {(endpoint or {}).get('model') or ''}".strip()
    parts = [str(model)] + ([backend["adapter"]] if backend.get("adapter") else [])
    return " ".join(fingerprint(Path(part)) if Path(part).is_dir() else part for part in parts)


def _run(
    job: Job,
    files: RunFiles,
    batch: Batch,
    outcomes: Iterator[Row | Failure],
    scored: bool,
    judge: Judge | None,
    on_progress: Callable[[str, RunCounts], None],
) -> dict:
    """Keep the outcomes of a benchmark, and score its answers."""
    earlier = [files.rows[item.index] for item in job.selected if item.index in files.rows]
    counts = RunCounts(len(job.selected), len(earlier), sum(row.finish_reason == "length" for row in earlier))
    keep(
        itertools.islice(outcomes, len(batch.items)), files, counts,
        lambda counts: on_progress(job.benchmark.name, counts),
    )  # fmt: skip
    files.finish(job.items)
    answers = {index: row.prediction for index, row in files.rows.items()}
    if scored:
        document = score_items(job.benchmark, job.items, answers, job.settings.rules, judge)
        with complete_file(files.score) as stream:
            json.dump(document, stream, ensure_ascii=False, indent=2)
    else:
        document = {"benchmark": job.benchmark.name, "scored": len(answers), "expected": len(job.items)}
    return document | {"failures": {str(index): reason for index, reason in counts.failures.items()}}
