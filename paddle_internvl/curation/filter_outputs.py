"""Outputs of the data filter: which file a line goes to, the lines of the files, and the counts of the report.

In: checked lines, decisions of reviewers. Out: (file, line) pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from paddle_internvl.curation.decisions import ACCEPT, REJECT, Decisions, sample_id
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.filter_state import Progress
from paddle_internvl.curation.jsonl import Line, as_line
from paddle_internvl.curation.judge_rules import JUDGE_RULES
from paddle_internvl.curation.line_checks import CheckedLine
from paddle_internvl.curation.rules import Finding
from paddle_internvl.evaluation.judge import Judge

KEPT, DROPPED, FLAGGED = OUTPUTS = ("kept", "dropped", "flagged")
SCORES = "scores"
_REVIEWED = {ACCEPT: KEPT, REJECT: DROPPED}


def reviewed(
    source: FilterSource, line: Line, found: list[Finding], decisions: Decisions | None
) -> tuple[str, str | None]:
    """The output of a line, and what reviewers decided about a flagged one; a conflict stays flagged."""
    if not found:
        return KEPT, None
    if any(finding.action == "drop" for finding in found):
        return DROPPED, None
    verdict = decisions and decisions.verdict(sample_id({**_place(source, line), **_content(line)}))
    return _REVIEWED.get(verdict, FLAGGED), verdict


def written(
    source: FilterSource, one: CheckedLine, found: list[Finding], output: str, verdict: str | None, scores: bool
) -> Iterator[tuple[str, str]]:
    """Output files and their lines: a kept line as it was; another one with its place, reasons and review.

    Args:
        source: data set of the line.
        one: the line.
        found: what it breaks.
        output: see `reviewed`.
        verdict: see `reviewed`.
        scores: whether `scores.jsonl` has a line too.
    """
    if output == KEPT:
        yield KEPT, one.line.text + "\n"
    else:
        more = {"reasons": [asdict(finding) for finding in found], **({"review": verdict} if verdict else {})}
        yield output, as_line({**_place(source, one.line), **more, **_content(one.line)})
    if scores:
        values = {name: round(score, 4) for name, (score, _) in one.scores.items()}
        reasons = {name: one.scores[name][1] for name in JUDGE_RULES if name in one.scores}
        more = {"output": output, "scores": values, **({"judge": reasons} if reasons else {})}
        yield SCORES, as_line({**_place(source, one.line), **more})


def _place(source: FilterSource, line: Line) -> dict:
    return {"dataset": source.name, "line": line.number}


def _content(line: Line) -> dict:
    return {"item": line.item} if line.item is not None else {"text": line.text}


class JudgeCost:
    """The counts of a judge in pieces, for the commits of a run.

    Args:
        judge: None: there are no counts.
    """

    def __init__(self, judge: Judge | None):
        self._judge, self._last = judge, dict(vars(judge.counts)) if judge else {}

    def since_last(self) -> dict[str, int]:
        """Replies, failures and tokens since the last call."""
        current = dict(vars(self._judge.counts)) if self._judge else {}
        new = {f"judge:{name}": value - self._last[name] for name, value in current.items()}
        self._last = current
        return new


def counts_of(progress: Progress) -> dict:
    """The counts of a data set for the report."""
    counts: dict = {name: progress.counts[name] for name in ("lines", *OUTPUTS)}
    counts["rules"] = {}
    for name in sorted(progress.counts):
        rule, _, action = name.partition("/")
        part, _, kind = name.partition(":")
        if action:
            counts["rules"].setdefault(rule, {})[action] = progress.counts[name]
        elif kind:
            counts.setdefault(part, {})[kind] = progress.counts[name]
    return counts
