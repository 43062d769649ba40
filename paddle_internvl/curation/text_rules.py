"""Text rules: abnormal sentence lengths, duplicate lines, broken markup, language mix, empty answers.

In: `SampleTexts`. Out: the score of a rule and what was found; a score above the rule's threshold is a finding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from paddle_internvl.curation.repetition import THRESHOLDS, repetition_scores
from paddle_internvl.curation.sample_texts import SampleTexts

Score = tuple[float, str]  # and what was found
_SENTENCE_END = re.compile(r"[.!?…](?=\s|$)|[。！？；\n]")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\S+")
_ADDRESS = re.compile(r"https?://|[\\{}\[\]()<>|/]")  # of addresses, formulas, boxes and tables, which have long words
_SCRIPTS = {
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "Chinese": re.compile(r"[\u3400-\u9fff]"),
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Korean": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Devanagari": re.compile(r"[\u0900-\u097f]"),
    "Thai": re.compile(r"[\u0e00-\u0e7f]"),
    "Hebrew": re.compile(r"[\u0590-\u05ff]"),
}
_WEIGHTS = {"Chinese": 3, "Japanese": 3, "Korean": 3}  # letters of a word, to compare it with Latin words
_LEAST_LETTERS = 10
_TAGS = re.compile(r"<(/?)(ref|box|quad|p|table|tr|td|th|think|ul|ol|li|b|i|div|span|code|pre)>")
_UNCLOSED = {"p", "li", "tr", "td", "th"}  # HTML closes them by itself
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([a-zA-Z]+\*?)\}")
_MOJIBAKE = re.compile(r"\ufffd|Ã[\x80-\xbf©¨¢¡±]|â€[™œ\x9d“”˜¦]|ï»¿|\x00")
_LEAST_LINE = 4  # characters


def empty_answer(sample: SampleTexts) -> Score:
    """1 if an answer has no character but blanks."""
    empty = sum(not text.strip() for text in sample.answers)
    return float(empty > 0), f"{empty} empty answers"


def sentence_length(sample: SampleTexts) -> Score:
    """Words of the longest sentence of the answers, without code; an ideograph is a word."""
    return max((_longest_sentence(text) for text in sample.answers), default=(0.0, ""))


def _longest_sentence(text: str) -> Score:
    sentences = _SENTENCE_END.split(_CODE.sub("", text))
    longest = max(sentences, key=len)
    count = len(_WORD.findall(longest))
    return float(count), f"a sentence of {count} words: {longest.strip()[:40]!r}"


def word_length(sample: SampleTexts) -> Score:
    """Characters of the longest word of the answers; addresses, formulas, boxes and code do not count."""
    words = (
        word
        for text in sample.answers
        if len(text) > 40
        for word in _WORD.findall(_CODE.sub("", text))
        if len(word) > 40 and word.isascii() and any(map(str.isalnum, word)) and not _ADDRESS.search(word)
    )
    longest = max(words, key=len, default="")
    return float(len(longest)), f"a word of {len(longest)} characters: {longest[:40]!r}"


def duplicate_lines(sample: SampleTexts) -> Score:
    """Most copies of one line that follows itself in an answer, or 0: copies that are apart are counted by
    `repetition`."""
    return max((_line_run(text) for text in sample.answers), default=(0.0, ""))


def _line_run(text: str) -> Score:
    lines = [line.strip() for line in _CODE.sub("", text).split("\n") if len(line.strip()) >= _LEAST_LINE]
    longest, found, run = 0, "", 1
    for line, following in zip(lines, lines[1:]):
        run = run + 1 if line == following and any(c.isalnum() for c in line) else 1
        if run > max(longest, 1):
            longest, found = run, line
    return float(longest), f"{longest} times the line {found[:40]!r}"


def broken_markup(sample: SampleTexts) -> Score:
    """Number of unclosed or unopened tags, code fences, formulas and environments, and of undecodable characters."""
    found = [fault for text in sample.answers for fault in _markup_faults(text)]
    return float(len(found)), ", ".join(dict.fromkeys(found))


def _markup_faults(text: str) -> Iterator[str]:
    if _MOJIBAKE.search(text):
        yield "undecodable characters"
    if text.count("```") % 2:
        yield "an open code fence"
    plain = _CODE.sub("", text)
    if plain.count("$$") % 2:
        yield "an open $$"
    for opening, closing in (("\\[", "\\]"), ("\\(", "\\)")):
        if plain.count(opening) != plain.count(closing):
            yield f"{opening} without {closing}"
    yield from _unbalanced(((match[2], not match[1]) for match in _TAGS.finditer(plain)), "<{}>")
    yield from _unbalanced(((match[2], match[1] == "begin") for match in _ENVIRONMENT.finditer(plain)), "\\begin{{{}}}")


def _unbalanced(marks: Iterator[tuple[str, bool]], form: str) -> Iterator[str]:
    """Names that are closed unopened, or left open."""
    depth: Counter = Counter()
    for name, opens in marks:
        depth[name] += 1 if opens else -1
        if depth[name] < 0:
            yield f"{form.format(name)} is not opened"
            depth[name] = 0
    for name, count in depth.items():
        if count and name not in _UNCLOSED:
            yield f"{form.format(name)} is not closed"


def language_mix(sample: SampleTexts) -> Score:
    """Highest share, of the answers, of two parts in different scripts of which the prompts have one only.

    The share is that of the smaller part. An ideograph counts as three letters. Latin letters in other scripts do not
    count (names, units, code), nor do fewer than 10 letters.
    """
    return max((_mixed_scripts(text, sample.prompts) for text in sample.answers), default=(0.0, ""))


def _mixed_scripts(text: str, prompts: tuple[str, ...]) -> Score:
    if text.isascii():
        return 0.0, ""
    text = _CODE.sub("", text)
    letters = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    weights = {name: count * _WEIGHTS.get(name, 1) for name, count in letters.items()}
    found = [(0.0, "")]
    for name, count in letters.items():
        if count < _LEAST_LETTERS or name == "Latin" or any(_SCRIPTS[name].search(prompt) for prompt in prompts):
            continue
        kin = {"Chinese", "Japanese"} if name in ("Chinese", "Japanese") else {name}
        share = sum(weights[other] for other in kin) / sum(weights.values())
        found.append((min(share, 1 - share), f"{letters[name]} letters of {name} of {sum(letters.values())}"))
    return max(found)


def repetition(sample: SampleTexts) -> Score:
    """Highest of the repetition scores of the answers, each divided by its threshold."""
    scores = (
        (score / THRESHOLDS[name], f"{name} {score:.2f}")
        for text in sample.answers
        for name, score in repetition_scores(text).items()
    )
    return max(scores, default=(0.0, ""))
