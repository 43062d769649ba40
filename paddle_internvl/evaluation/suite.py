"""`evaluate`: a model on several benchmarks: answers asked, kept and scored."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paddle_internvl.checkpoints.fingerprint import fingerprint
from paddle_internvl.checkpoints.folder_checks import chat_folder
from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.chats import chat_of, is_endpoint
from paddle_internvl.evaluation.completion import Chat
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.readers import default_rules, read_items
from paddle_internvl.evaluation.reuse import reused_rows
from paddle_internvl.evaluation.run import AskSettings, RunCounts, ask_items
from paddle_internvl.evaluation.run_files import RunFiles
from paddle_internvl.evaluation.scoring import score_items
from paddle_internvl.evaluation.user_benchmarks import find_benchmark
from paddle_internvl.jsonl import complete_file

_DEFAULTS = AskSettings()
_DATA_ROOT = "LMUData"  # VLMEvalKit's environment variable


@dataclass(frozen=True)
class Job:
    """A benchmark of a run.

    Attributes:
        benchmark: its row of the table.
        path: file or folder of the data.
        items: rows to be asked.
        settings: of prompts and answers.
    """

    benchmark: Benchmark
    path: Path
    items: Sequence[Item]
    settings: AskSettings


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
    root = data_root or Path(os.environ.get(_DATA_ROOT, "~/LMUData")).expanduser()
    jobs = []
    for word in data:
        name, _, path = word.partition("=")
        benchmark = find_benchmark(name, benchmarks)
        place = Path(path) if path else root
        rules = settings.rules or default_rules(benchmark, place)
        items = list(read_items(benchmark, place, rules))[:limit]
        jobs.append(Job(benchmark, place, items, replace(settings, rules=rules)))
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
        concurrency: rows asked at a time.
        judge: decides rows that rules can't.
        on_progress: called with the benchmark's name and the counts of its run.
        endpoint: `model` and `key` of a server.
        backend: fields of the `EngineConfig` of a checkpoint.
    Returns:
        By benchmark: the document of `score`, or `benchmark`, `scored` and `expected` without scores; and `failures`,
        the reason by index of rows without an answer.
    """
    if isinstance(model, (str, Path)) and not is_endpoint(str(model)):
        chat_folder(str(model), weights=Path(model).exists())
    jobs = plan(data, data_root, settings, limit, benchmarks)
    name = name or Path(str(getattr(model, "model", model)).rstrip("/")).name
    folder = Path(work_dir) / name
    results = {}
    with contextlib.ExitStack() as stack:
        if isinstance(model, (str, Path)):
            identity = _identity(str(model), endpoint, backend)
            chat = stack.enter_context(contextlib.closing(chat_of(str(model), **(endpoint or {}), **backend)))
        else:
            identity, chat = model.model, model
        for job in jobs:
            files = RunFiles(folder, name, job.benchmark.name, {"model": identity, **asdict(job.settings)}, overwrite)
            for row in reused_rows(reuse, name, job.benchmark, job.items) if reuse else ():
                files.append(row)
            counts = ask_items(
                job.benchmark, job.items, chat, job.settings, files, concurrency,
                as_urls=isinstance(model, (str, Path)) and is_endpoint(str(model)),
                on_progress=lambda counts, job=job: on_progress(job.benchmark.name, counts),
            )  # fmt: skip
            results[job.benchmark.name] = _document(job, files, judge, scored) | {
                "failures": {str(index): reason for index, reason in counts.failures.items()}
            }
    return results


def _identity(model: str, endpoint: Mapping | None, backend: Mapping) -> str:
    """What answers depend on in a model: its files, or its address."""
    if is_endpoint(model):
        return f"{model} {(endpoint or {}).get('model') or ''}".strip()
    parts = [model] + ([backend["adapter"]] if backend.get("adapter") else [])
    return " ".join(fingerprint(Path(part)) if Path(part).is_dir() else part for part in parts)


def _document(job: Job, files: RunFiles, judge: Judge | None, scored: bool) -> dict:
    answers = {index: row.prediction for index, row in files.rows().items()}
    if not scored:
        return {"benchmark": job.benchmark.name, "scored": len(answers), "expected": len(job.items)}
    document = score_items(job.benchmark, job.items, answers, job.settings.rules, judge)
    with complete_file(files.score) as stream:
        json.dump(document, stream, ensure_ascii=False, indent=2)
    return document
