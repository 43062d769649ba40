"""Filter rules: a table of scores, thresholds and actions.

In: `SampleTexts`. Out: `Finding`s. A rule's row says what is measured; `text_rules`, `media_rules` and `duplicates`
measure it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paddle_internvl.curation import media_rules, text_rules
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
    """

    action: str
    threshold: float
    score: Callable[[SampleTexts], Score] | None = None


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
}
REPETITION = {"repetition", "duplicate_lines"}  # from which data sets can be exempt


def findings(sample: SampleTexts, rules: dict[str, Rule]) -> list[Finding]:
    """What a sample breaks of the rules that need nothing but the sample."""
    found = []
    for name, rule in rules.items():
        if rule.score is not None and rule.action != "off":
            score, detail = rule.score(sample)
            if score > rule.threshold:
                found.append(Finding(name, rule.action, round(score, 4), detail))
    return found
