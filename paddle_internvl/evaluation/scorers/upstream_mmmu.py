"""Scorer of MMMU by upstream's rules: letters, and numbers or key phrases of open answers.

Source: OpenGVLab/InternVL 2410d1d, internvl_chat/eval/mmmu/{evaluate_mmmu,main_eval_only,eval_utils}.py; the latter two
are MMMU's official scripts.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.cells import list_text
from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import overall, percent, with_verdict
from paddle_internvl.evaluation.scorers.upstream_choice import upstream_letter

DOMAINS = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health"
    ),
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
        "Mechanical_Engineering"
    ),
}
_DOMAIN = {subject: domain for domain, subjects in DOMAINS.items() for subject in subjects.split()}
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
# The originals lack (?<!\d), which keeps the search linear in a long run of digits and finds the same.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # with commas
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),  # scientific
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_TRIVIAL = set(":,.!?;'")


def score_internvl_mmmu(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MMMU by upstream's rules.

    Args:
        items: questions; the index is `<split>_<subject>_<number>`. An item without options is an open question whose
            `answer` is a text or a list of texts.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    Returns:
        Per cent right by split: `Overall`, `Overall-<domain>` and every subject. The headline is that of the split
        `validation` where the file has it.
    """
    rows = {item.index: _verdict(item, answers.get(item.index)) for item in items}
    cells = defaultdict(list)
    for item, verdict in with_verdict(items, rows):
        subject = "_".join(str(item.index).split("_")[1:-1])
        domain = _DOMAIN.get(subject)
        for column in filter(None, ("Overall", subject, domain and f"Overall-{domain}")):
            cells[item.split, column].append(verdict)
    table = {key: percent(verdicts) for key, verdicts in cells.items()}
    return Scores(table, table.get(("validation", "Overall"), overall(items, rows)), rows)


def _verdict(item: Item, answer: str | None) -> Verdict:
    """Verdict on a letter or on an open answer."""
    if answer is None or item.answer is None:
        return Verdict(None)
    if item.options:
        letter = upstream_letter(answer, item.options)
        return Verdict(float(letter == item.answer), letter if letter in item.options else None)
    references = {value for text in list_text(item.answer) for value in _normalized(text)}
    found = _first_match(open_values(answer.strip()), references)
    return Verdict(float(found is not None), found)


def open_values(answer: str) -> set[str | float]:
    """Key phrases of an open answer, lower case, and the numbers in them, rounded to two decimals."""
    phrases = _key_phrases(answer)
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    return {value for text in (*phrases, *numbers) for value in _normalized(text)}


def _key_phrases(answer: str) -> list[str]:
    """The shortest text behind an indicator such as `is `, of each sentence; the whole answer where there is none."""
    text = answer.strip().strip(".").lower()
    sentences = _SENTENCES.split(text)
    phrases = []
    for number, sentence in enumerate(sentences, start=1):
        indicators = (*_INDICATORS, "=") if number == len(sentences) else _INDICATORS
        tails = [sentence.split(indicator)[-1].strip() for indicator in indicators if indicator in sentence]
        shortest = _shortest(tails)
        if shortest and shortest not in _TRIVIAL:
            phrases.append(shortest)
    return phrases or [text]


def _shortest(tails: Sequence[str]) -> str:
    """The shortest tail. An empty tail gives way to the tail that follows it, as in the original."""
    shortest = ""
    for tail in tails:
        if not shortest or len(tail) < len(shortest):
            shortest = tail
    return shortest


def _normalized(text: str) -> list[str | float]:
    """A number rounded to two decimals, else the text in lower case; a single character with a blank on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _first_match(values: set[str | float], references: set[str | float]) -> str | None:
    """A value that equals a number of the references or contains a text of them."""
    for value in values:
        if isinstance(value, float):
            if value in references:
                return str(value)
        elif any(isinstance(reference, str) and reference in value for reference in references):
            return value
    return None
