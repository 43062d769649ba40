"""Scorers of MVBench: the first word of an answer against the letter of the right candidate, by task.

Sources: VLMEvalKit 00e0cf87, dataset/utils/mvbench.py and dataset/mvbench.py; OpenGVLab/InternVL 2410d1d,
internvl_chat/eval/mvbench/evaluate_mvbench.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.scorers.letters import FAILURE, letters, options_of_list
from paddle_internvl.evaluation.scorers.scores import Scores, Verdict
from paddle_internvl.evaluation.scorers.tables import overall, percent, with_verdict


def score_mvbench(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MVBench by VLMEvalKit's rules: the first word, else the letter rules on the candidates.

    Args:
        items: questions; `answer` is the text of the right candidate; candidates are `options`, or a list in the
            column `candidates`.
        answers: of the model, by index.
        judge: reads answers that name no single candidate; None: these answers are wrong.
    Returns:
        Per cent right by task and `overall`; the headline is `overall`, of all rows.
    """
    lettered = [_lettered(item) for item in items]
    stripped = {index: answer.strip() for index, answer in answers.items()}
    rows = {item.index: _verdict(item, stripped.get(item.index)) for item in lettered}
    unread = [item for item in lettered if rows[item.index].verdict == 0.0 and FAILURE not in answers[item.index]]
    found, notes = letters(unread, answers, judge)
    for item in unread:
        letter = found[item.index]
        rows[item.index] = Verdict(float(letter == item.answer), letter or rows[item.index].extracted)
    return _score(items, rows, "overall", notes)


def score_internvl_mvbench(items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None = None) -> Scores:
    """Scores of MVBench by upstream's rules: the first word alone.

    Args:
        items: as of `score_mvbench`.
        answers: of the model, by index.
        judge: is not asked: the rules have no judge.
    Returns:
        Per cent right by task and `Avg`; the headline is `Avg`, of all rows.
    """
    plain = {index: answer.replace("Answer: ", "") for index, answer in answers.items()}
    rows = {item.index: _verdict(_lettered(item), plain.get(item.index)) for item in items}
    return _score(items, rows, "Avg", ())


def _lettered(item: Item) -> Item:
    """Item with its candidates as options, and the letter of the right one as its reference."""
    options = item.options or options_of_list(item.columns.get("candidates", ""))
    right = [letter for letter, text in options.items() if text == item.answer]
    return replace(item, options=options, answer=right[-1] if right else None)


def _verdict(item: Item, answer: str | None) -> Verdict:
    """Verdict on the first word of an answer; `extracted` is the right letter, or the first that the word names."""
    if answer is None or item.answer is None:
        return Verdict(None)
    word = answer.lower().split(" ")[0]
    if _names(word, item.answer):
        return Verdict(1.0, item.answer)
    return Verdict(0.0, next((letter for letter in item.options if _names(word, letter)), None))


def _names(word: str, letter: str) -> bool:
    """Whether a word names an option, `(a)`. An empty word names none; both references take it for right."""
    option = f"({letter.lower()})"
    plain = word.replace(".", "")
    return (plain != "" and plain in option) or option in word


def _score(items: Sequence[Item], rows: Mapping[Index, Verdict], total: str, notes: tuple[str, ...]) -> Scores:
    """Per cent right by task and of all rows."""
    tasks = defaultdict(list)
    for item, verdict in with_verdict(items, rows):
        tasks[item.columns.get("task_type") or item.category].append(verdict)
    headline = overall(items, rows)
    table = {("none", task): percent(verdicts) for task, verdicts in tasks.items()}
    if headline is not None:
        table["none", total] = headline
    return Scores(table, headline, dict(rows), notes)
