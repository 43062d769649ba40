"""Data filter: streams data sets through the rules into kept, dropped and flagged JSONL.

In: data sets and `FilterSettings`. Out: for each data set `kept.jsonl`, its lines as they were, and `dropped.jsonl` and
`flagged.jsonl`, with the line and every reason, in input order; and the counts. Source: InternVL 2.5's "Data Filtering
Pipeline" (arXiv 2412.05271).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from paddle_internvl.curation.duplicates import DuplicateIndex, Place
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.filter_state import FilterState, Progress, remove_state
from paddle_internvl.curation.jsonl import Line, as_line, parse_line, read_lines
from paddle_internvl.curation.rules import REPETITION, RULES, Finding, Rule, findings
from paddle_internvl.curation.sample_texts import SampleTexts, sample_texts
from paddle_internvl.jsonl import complete_file

KEPT, DROPPED, FLAGGED = OUTPUTS = ("kept", "dropped", "flagged")
REPORT = "report.json"


@dataclass(frozen=True)
class FilterSettings:
    """Settings of `run_filter`.

    Attributes:
        rules: by name; see `rules.RULES`.
        exempt: names of data sets that the repetition rules leave alone.
        commit_lines: lines between two commits of the progress.
    """

    rules: dict[str, Rule] = field(default_factory=lambda: dict(RULES))
    exempt: frozenset[str] = frozenset()
    commit_lines: int = 2000

    def __post_init__(self):
        for name, rule in self.rules.items():
            if name not in RULES:
                raise ValueError(f"rule {name!r}; use some of {', '.join(RULES)}")
            if name == "not_a_sample" and rule.action == "off":
                raise ValueError("not_a_sample can't be off: what is no sample can't be checked")


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
        For each data set `lines`, `kept`, `dropped`, `flagged`, and `rules`: for each rule the findings by action.
    Raises:
        ValueError: OUT holds a finished run, or an interrupted one with other settings.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names) or not settings.exempt <= set(names):
        raise ValueError(f"data sets {', '.join(names)}: each needs a name of its own, exempt ones must be among them")
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
    report = {source.name: _counts(state.load(source.name)) for source in sources}
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
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(_continued(folder, name, progress)) for name in OUTPUTS}

        def commit(done: bool) -> None:
            for name, stream in files.items():
                stream.flush()
                os.fsync(stream.fileno())
                progress.sizes[name] = stream.tell()
            progress.done = done
            if done:
                for name in OUTPUTS:
                    os.replace(folder / f"{name}.jsonl.part", folder / f"{name}.jsonl")
            state.save(source.name, progress)

        for line in read_lines(source.file, progress.offset, progress.line):
            found = _check(line, Place(number, line.number, line.offset), sources, rules, index)
            output = KEPT if not found else DROPPED if any(one.action == "drop" for one in found) else FLAGGED
            files[output].write(_output_line(source, line, found).encode("utf-8", "surrogatepass"))
            progress.counts.update(["lines", output, *(f"{one.rule}/{one.action}" for one in found)])
            progress.line, progress.offset = line.number + 1, line.offset + line.size
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


def _check(
    line: Line, place: Place, sources: Sequence[FilterSource], rules: dict[str, Rule], index: DuplicateIndex
) -> list[Finding]:
    """What a line breaks of the rules."""
    root = sources[place.file].root
    try:
        if line.error:
            raise ValueError(line.error)
        sample = sample_texts(line.item, root)
    except ValueError as error:
        return [Finding("not_a_sample", rules["not_a_sample"].action, 1.0, str(error))]
    found = findings(sample, rules)
    if "duplicate" in rules and (first := index.exact(sample, place)):
        return [*found, Finding("duplicate", rules["duplicate"].action, 1.0, f"of {_named(first, sources)}")]

    def read(other: Place) -> SampleTexts:
        with open(sources[other.file].file, "rb") as stream:
            stream.seek(other.offset)
            return sample_texts(parse_line(stream.readline(), other.line, other.offset).item, sources[other.file].root)

    if "near_duplicate" in rules and (similar := index.near(sample, place, read)):
        first, similarity = similar
        detail = f"of {_named(first, sources)}"
        found.append(Finding("near_duplicate", rules["near_duplicate"].action, round(similarity, 4), detail))
    return found


def _named(place: Place, sources: Sequence[FilterSource]) -> str:
    return f"{sources[place.file].name}, line {place.line}"


def _output_line(source: FilterSource, line: Line, found: list[Finding]) -> str:
    """A kept line as it was; another one with its place and the reasons."""
    if not found:
        return line.text + "\n"
    content = {"item": line.item} if line.item is not None else {"text": line.text}
    return as_line({"dataset": source.name, "line": line.number, "reasons": [asdict(one) for one in found], **content})


def _identity(sources: Sequence[FilterSource], settings: FilterSettings) -> dict:
    """What an interrupted run must have in common with its continuation."""
    inputs = [
        [source.name, str(source.file.resolve()), str(source.root.resolve()), source.file.stat().st_size,
         source.file.stat().st_mtime_ns]
        for source in sources
    ]  # fmt: skip
    rules = {name: [rule.action, rule.threshold] for name, rule in settings.rules.items()}
    return {"inputs": inputs, "rules": rules, "exempt": sorted(settings.exempt)}


def _counts(progress: Progress) -> dict:
    """The counts of a data set for the report."""
    counts = {name: progress.counts[name] for name in ("lines", *OUTPUTS)}
    rules: dict[str, dict[str, int]] = {}
    for name in sorted(progress.counts):
        rule, _, action = name.partition("/")
        if action:
            rules.setdefault(rule, {})[action] = progress.counts[name]
    return {**counts, "rules": rules}
