"""Filter rules: a table of scores, thresholds and actions.

In: `SampleTexts`. Out: `Finding`s. A rule's row says what is measured; `text_rules`, `media_rules`, `duplicates`
and `judge_rules` measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paddle_internvl.curation import media_rules, text_rules
from paddle_internvl.curation.judge_rules import JUDGED_REPETITION, NO_VERDICT, QUALITY
from paddle_internvl.curation.sample_texts import SampleTexts
from paddle_internvl.curation.text_rules import Score

ACTIONS = ("drop", "flag", "off")


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        action: 'drop', 'flag' (for a manual review) or 'off'.
        threshold: a higher score is a finding.
        score: function of a sample; None: the filter measures it, since it needs more than the sample.
        lower: a lower score than the threshold is a finding instead.
    """

    action: str
    threshold: float
    score: Callable[[SampleTexts], Score] | None = None
    lower: bool = False

    def is_broken(self, score: float) -> bool:
        """Whether a score is a finding."""
        return score < self.threshold if self.lower else score > self.threshold


@dataclass(frozen=True)
class Finding:
    """A sample breaks a rule.

    Attributes:
        rule: name of the rule.
        action: 'drop' or 'flag'.
        score: of the rule.
        detail: what was found.
    """

    rule: str
    action: str
    score: float
    detail: str


RULES = {
    "not_a_sample": Rule("drop", 0),  # no JSON, no conversation
    "empty_answer": Rule("drop", 0, text_rules.empty_answer),
    "picture_count": Rule("drop", 0, media_rules.picture_count),
    "unreadable_media": Rule("drop", 0, media_rules.unreadable_media),
    "duplicate": Rule("drop", 0),  # equal texts and media, without case and blanks
    "near_duplicate": Rule("off", 0.8),  # Jaccard similarity of 3-word shingles; equal media
    "repetition": Rule("flag", 1, text_rules.repetition),
    "duplicate_lines": Rule("flag", 2, text_rules.duplicate_lines),
    "sentence_length": Rule("flag", 150, text_rules.sentence_length),
    "word_length": Rule("flag", 100, text_rules.word_length),
    "broken_markup": Rule("flag", 0, text_rules.broken_markup),
    "language_mix": Rule("flag", 0.15, text_rules.language_mix),
    QUALITY: Rule("drop", 7, lower=True),
    JUDGED_REPETITION: Rule("drop", 3, lower=True),
    NO_VERDICT: Rule("flag", 0),  # of the judge
}
REPETITION = {"repetition", "duplicate_lines", JUDGED_REPETITION}  # from which data sets can be exempt


def measure(sample: SampleTexts, rules: Mapping[str, Rule]) -> dict[str, Score]:
    """Scores of the rules that need nothing but the sample, and what was found."""
    return {name: rule.score(sample) for name, rule in rules.items() if rule.score is not None and rule.action != "off"}


def broken(scores: Mapping[str, Score], rules: Mapping[str, Rule]) -> list[Finding]:
    """The findings among scores."""
    return [
        Finding(name, rules[name].action, round(score, 4), detail)
        for name, (score, detail) in scores.items()
        if rules[name].is_broken(score)
    ]


def findings(sample: SampleTexts, rules: Mapping[str, Rule]) -> list[Finding]:
    """What a sample breaks of the rules that need nothing but the sample."""
    return broken(measure(sample, rules), rules)
