"""Line checks of the data filter: scores of a line by the rules, duplicates among the lines, scores of the judge.

In: lines of a data set, in order. Out: `CheckedLine`s in the same order. The rules run where `line_workers`
says, the judge is asked about several lines at a time; duplicates are looked up in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_internvl.curation.duplicates import DuplicateIndex, Place
from paddle_internvl.curation.filter_sources import FilterSource
from paddle_internvl.curation.jsonl import Line, parse_line
from paddle_internvl.curation.judge_prompts import DOMAINS
from paddle_internvl.curation.judge_rules import JUDGE_RULES, judge_scores
from paddle_internvl.curation.rules import Finding, Rule, broken, measure
from paddle_internvl.curation.sample_texts import SampleTexts, sample_texts
from paddle_internvl.curation.text_rules import Score
from paddle_internvl.evaluation.judge import Judge


@dataclass(frozen=True)
class CheckedLine:
    """A line with its scores.

    Attributes:
        line: of the data set.
        sample: its texts and media; None: the line is no sample.
        scores: score and what was found, by rule.
    """

    line: Line
    sample: SampleTexts | None
    scores: Mapping[str, Score]

    def findings(self, rules: Mapping[str, Rule]) -> list[Finding]:
        """What the line breaks of the rules."""
        return broken(self.scores, rules)


@dataclass(frozen=True)
class LineChecker:
    """Checks batches of lines by the rules that need nothing but the sample.

    Attributes:
        rules: by name.
        root: folder of the media.
    """

    rules: Mapping[str, Rule]
    root: Path

    def __call__(self, lines: Sequence[Line]) -> list[CheckedLine]:
        """The lines with their scores."""
        return [self._check(line) for line in lines]

    def _check(self, line: Line) -> CheckedLine:
        try:
            if line.error:
                raise ValueError(line.error)
            sample = sample_texts(line.item, self.root)
        except ValueError as error:
            return CheckedLine(line, None, {"not_a_sample": (1.0, str(error))})
        return CheckedLine(line, sample, measure(sample, self.rules))


def with_duplicates(
    checked: Iterable[CheckedLine],
    number: int,
    sources: Sequence[FilterSource],
    rules: Mapping[str, Rule],
    index: DuplicateIndex,
) -> Iterator[CheckedLine]:
    """Lines with the scores of duplicates: of an exact one, or else of a near one.

    Args:
        checked: lines of one data set, in order.
        number: of the data set.
        sources: all data sets.
        rules: that apply, by name.
        index: of the samples so far.
    """

    def read(place: Place) -> SampleTexts:
        source = sources[place.file]
        with open(source.file, "rb") as stream:
            stream.seek(place.offset)
            return sample_texts(parse_line(stream.readline(), place.line, place.offset).item, source.root)

    def named(place: Place) -> str:
        return f"of {sources[place.file].name}, line {place.line}"

    for one in checked:
        scores, place = dict(one.scores), Place(number, one.line.number, one.line.offset)
        if one.sample is not None:
            if "duplicate" in rules and (first := index.exact(one.sample, place)):
                scores["duplicate"] = (1.0, named(first))
            elif "near_duplicate" in rules and (similar := index.near(one.sample, place, read)):
                scores["near_duplicate"] = (similar[1], named(similar[0]))
        yield replace(one, scores=scores)


def with_verdicts(
    checked: Iterable[CheckedLine], judge: Judge, domain: str, rules: Mapping[str, Rule]
) -> Iterator[CheckedLine]:
    """Lines with the scores of a judge, which is not asked about lines that another rule drops.

    Args:
        checked: lines in order.
        judge: asked about several lines at a time.
        domain: of lines without a `domain` of their own that is one of `DOMAINS`.
        rules: that apply, by name.
    """
    if not set(JUDGE_RULES) & set(rules):
        return iter(checked)

    def judged(one: CheckedLine) -> CheckedLine:
        if one.sample is None or any(finding.action == "drop" for finding in one.findings(rules)):
            return one
        item = one.line.item
        name = item.get("domain")
        name = name if isinstance(name, str) and name in DOMAINS else domain
        return replace(one, scores={**one.scores, **judge_scores(judge, item, one.sample, name, rules)})

    return judge.map(judged, checked)
