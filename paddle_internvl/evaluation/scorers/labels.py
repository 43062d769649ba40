"""Labels of yes/no answers: VLMEvalKit's `YOrN_Extraction`, and the judge where an answer has no label.

In: items and their answers. Out: "Yes", "No" or "Unknown" per item. Source: VLMEvalKit 00e0cf87,
dataset/utils/yorn.py and dataset/image_yorn.py.
"""

from collections.abc import Mapping, Sequence

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.evaluation.judge import Judge
from paddle_internvl.evaluation.judge_prompts import conversation
from paddle_internvl.evaluation.judging import judge_all
from paddle_internvl.evaluation.punctuation import remove_punctuation
from paddle_internvl.evaluation.scorers.scores import Verdict

UNKNOWN = "Unknown"


def infer_label(answer: str) -> str:
    """Label of an answer: that of `yes` and `no` which is a word of the answer while the other is not."""
    words = remove_punctuation(answer.lower()).split()
    yes, no = "yes" in words, "no" in words
    return UNKNOWN if yes == no else "Yes" if yes else "No"


def label_verdicts(
    items: Sequence[Item], answers: Mapping[Index, str], judge: Judge | None
) -> tuple[dict[Index, Verdict], tuple[str, ...]]:
    """Verdicts on yes/no answers, and notes on the answers without a label.

    Args:
        items: questions; `answer` is "Yes" or "No".
        answers: of the model, by index.
        judge: reads the answers that have no label; None: these answers are wrong.
    Returns:
        Verdict by index, `extracted` being the label; and notes.
    """
    labels = {item.index: infer_label(answers[item.index]) for item in items if item.index in answers}
    unread = [item for item in items if labels.get(item.index) == UNKNOWN]
    if judge is not None and unread:
        questions = [conversation("yes_no", question=item.question, prediction=answers[item.index]) for item in unread]
        replies = judge_all(judge, questions, [_parse] * len(unread))
        labels.update((item.index, label or UNKNOWN) for item, label in zip(unread, replies, strict=True))
    rows = {item.index: Verdict.of_equality(labels.get(item.index), item.answer) for item in items}
    unknown = sum(label == UNKNOWN for label in labels.values())
    if not unknown:
        return rows, ()
    source = "rule-based: no judge" if judge is None else "the judge gave no label"
    return rows, (f"{source}; {unknown} answers are neither yes nor no and count as wrong",)


def _parse(reply: str) -> str | None:
    """Label of a judge's reply; None asks again."""
    label = infer_label(reply)
    return None if label == UNKNOWN else label
