"""Data filter: streams data sets through the rules into kept, dropped and flagged JSONL.

In: data sets and `FilterSettings`. Out: for each data set `kept.jsonl`, its lines as they were, and `dropped.jsonl` and
`flagged.jsonl`, with the line and every reason, in input order; `scores.jsonl`; and the counts. Source: InternVL 2.5's
"Data Filtering Pipeline" (arXiv 2412.05271).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.curation.decisions import Decisions
from paddle_internvl.curation.duplicates import DuplicateIndex
from paddle_internvl.curation.filter_outputs import OUTPUTS, SCORES, JudgeCost, counts_of, reviewed, written
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.filter_state import FilterState, Progress, remove_state
from paddle_internvl.curation.jsonl import read_lines
from paddle_internvl.curation.judge_prompts import DOMAINS
from paddle_internvl.curation.line_checks import LineChecker, with_duplicates, with_verdicts
from paddle_internvl.curation.line_workers import map_lines
from paddle_internvl.curation.rules import REPETITION, RULES, Rule
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.jsonl import complete_file

REPORT = "report.json"


@dataclass(frozen=True)
class FilterSettings:
    """Settings of `run_filter`.

    Attributes:
        rules: by name; see `rules.RULES`.
        exempt: names of data sets that the repetition rules leave alone.
        commit_lines: lines between two commits of the progress.
        judge: scores quality and repetition; None: neither is scored.
        domains: key of `judge_prompts.DOMAINS` by data set; others are general.
        scores: write `scores.jsonl`, the scores of every line.
        decisions: of reviewers about flagged samples.
        workers: processes of Ray that run the rules; None: this process.
        ray_address: of a cluster; None: this machine.
    """

    rules: Mapping[str, Rule] = field(default_factory=lambda: dict(RULES))
    exempt: frozenset[str] = frozenset()
    commit_lines: int = 2000
    judge: Judge | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    scores: bool = False
    decisions: Decisions | None = None
    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self):
        for name, rule in self.rules.items():
            if name not in RULES:
                raise ValueError(f"rule {name!r}; use some of {', '.join(RULES)}")
            if name == "not_a_sample" and rule.action == "off":
                raise ValueError("not_a_sample can't be off: what is no sample can't be checked")
        for domain in self.domains.values():
            if domain not in DOMAINS:
                raise ValueError(f"domain {domain!r}; use one of {', '.join(DOMAINS)}")

    def identity(self) -> dict:
        """What an interrupted run must have in common with its continuation; workers may differ."""
        return {
            "rules": {name: [rule.action, rule.threshold] for name, rule in self.rules.items()},
            "exempt": sorted(self.exempt),
            "judge": self.judge and self.judge.model,
            "domains": dict(self.domains),
            "scores": self.scores,
            "decisions": self.decisions and self.decisions.by_sample,
        }


def run_filter(
    sources: Sequence[FilterSource],
    out: Path,
    settings: FilterSettings,
    overwrite: bool = False,
    on_progress: Callable[[int], None] = lambda lines: None,
) -> dict[str, dict]:
    """Filter data sets. An interrupted run continues where its progress was committed.

    Args:
        sources: data sets; duplicates are found across them.
        out: folder of the outputs: of one data set itself, of several with a folder for each.
        settings: rules, exempt data sets.
        overwrite: begin anew where OUT holds a finished or another run.
        on_progress: called with 1 for each line, and first with the number of lines that were done before.
    Returns:
        For each data set `lines`, `kept`, `dropped`, `flagged`, and `rules`: for each rule the findings by action;
        with a judge `judge`: its replies, failures and tokens; with decisions `review`: the decisions by kind.
    Raises:
        ValueError: OUT holds a finished run, or an interrupted one with other settings.
        EndpointUnavailableError: the judge gives no replies; the run can be continued.
    """
    names = {source.name for source in sources}
    if len(names) < len(sources) or not settings.exempt | set(settings.domains) <= names:
        raise ValueError(
            f"data sets {', '.join(names)}: each needs a name of its own, and exempt ones and those with a domain "
            "must be among them"
        )
    if overwrite:
        remove_state(out)
        (out / REPORT).unlink(missing_ok=True)
    if (out / REPORT).exists():
        raise ValueError(f"{out / REPORT} exists; --overwrite replaces the run")
    with contextlib.closing(FilterState(out, _identity(sources, settings))) as state:
        return _run(sources, out, settings, state, on_progress)


def _run(sources, out: Path, settings: FilterSettings, state: FilterState, on_progress) -> dict[str, dict]:
    near = settings.rules.get("near_duplicate", RULES["near_duplicate"])
    index = DuplicateIndex(state.connection, near.threshold if near.action != "off" else None)
    for number, source in enumerate(sources):
        folder = out if len(sources) == 1 else out / source.name
        _filter_source(number, sources, folder, settings, state, index, on_progress)
    report = {source.name: counts_of(state.load(source.name)) for source in sources}
    with complete_file(out / REPORT) as stream:
        json.dump(report, stream, ensure_ascii=False, indent=2)
    state.close()
    remove_state(out)
    return report


def _filter_source(
    number: int,
    sources: Sequence[FilterSource],
    folder: Path,
    settings: FilterSettings,
    state: FilterState,
    index: DuplicateIndex,
    on_progress: Callable[[int], None],
) -> None:
    """Filter one data set, from its progress on."""
    source = sources[number]
    progress = state.load(source.name)
    on_progress(progress.counts["lines"])
    if progress.done:
        return
    exempt = REPETITION if source.name in settings.exempt else set()
    rules = {name: rule for name, rule in settings.rules.items() if rule.action != "off" and name not in exempt}
    lines = read_lines(source.file, progress.offset, progress.line)
    checked = map_lines(LineChecker(rules, source.root), lines, settings.workers, settings.ray_address)
    checked = with_duplicates(checked, number, sources, rules, index)
    if settings.judge is not None:
        checked = with_verdicts(checked, settings.judge, settings.domains.get(source.name, "general"), rules)
    cost = JudgeCost(settings.judge)
    names = (*OUTPUTS, SCORES) if settings.scores else OUTPUTS
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(_continued(folder, name, progress)) for name in names}

        def commit(done: bool) -> None:
            for name, stream in files.items():
                stream.flush()
                os.fsync(stream.fileno())
                progress.sizes[name] = stream.tell()
            progress.counts.update(cost.since_last())
            progress.done = done
            if done:
                for name in names:
                    os.replace(folder / f"{name}.jsonl.part", folder / f"{name}.jsonl")
            state.save(source.name, progress)

        for one in checked:
            found = one.findings(rules)
            output, verdict = reviewed(source, one.line, found, settings.decisions)
            for name, line in written(source, one, found, output, verdict, settings.scores):
                files[name].write(line.encode("utf-8", "surrogatepass"))
            progress.counts.update(["lines", output, *(f"{finding.rule}/{finding.action}" for finding in found)])
            progress.counts.update([f"review:{verdict}"] if verdict else [])
            progress.line, progress.offset = one.line.number + 1, one.line.offset + one.line.size
            if progress.counts["lines"] % settings.commit_lines == 0:
                commit(False)
            on_progress(1)
        commit(True)


def _continued(folder: Path, name: str, progress: Progress):
    """An output file, cut to its committed size."""
    part = folder / f"{name}.jsonl.part"
    size = progress.sizes.get(name, 0)
    if size and not part.exists():
        # The run was ended between the renaming of the finished files and the commit.
        os.replace(folder / f"{name}.jsonl", part)
    stream = open(part, "r+b" if part.exists() else "w+b")  # noqa: SIM115 (the caller closes it)
    stream.truncate(size)
    stream.seek(size)
    return stream


def _identity(sources: Sequence[FilterSource], settings: FilterSettings) -> dict:
    inputs = [
        [source.name, str(source.file.resolve()), str(source.root.resolve()), source.file.stat().st_size,
         source.file.stat().st_mtime_ns]
        for source in sources
    ]  # fmt: skip
    return {"inputs": inputs, **settings.identity()}
