"""DropoutNTP preference pairs: a rejected answer is half the chosen one, continued without the picture.

In: a JSONL with `question` (or `conversations` in its place), `chosen` (or `response`), and `image` or `video`. Out: a
preference JSONL: the same fields, `chosen` and `rejected`. Source: upstream's `mmpr_data_pipeline_dropout_ntp.py`;
"Mixed Preference Optimization" (arXiv 2411.10442), section 3.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.answer_file import AnswerForm, Progress, answer_seed, append_answers, read_items
from paddle_internvl.curation.answering import AnswerRequest, Answers
from paddle_internvl.curation.prompt_messages import messages_with_media, messages_without_media, prompt_turns
from paddle_internvl.curation.sample_texts import media_names

# An ideograph or kana, which no blank separates from the next, or a word; each with the blanks behind it.
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff] *|[^ \u3040-\u30ff\u3400-\u9fff]+ *| +")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class DropoutSettings:
    """Settings of `continue_without_media`.

    Attributes:
        start_ratio: share of the chosen answer's words that are kept.
        num_return_sequences: pairs of a sample.
        load_image: continue the answer with the picture or clip.
        root: folder of the media.
        seed: of the sampling.
    """

    start_ratio: float = 0.5
    num_return_sequences: int = 1
    load_image: bool = False
    root: Path = Path()
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.start_ratio < 1:
            raise ValueError(f"start_ratio {self.start_ratio} is not in [0, 1)")


def continue_without_media(
    source: Path,
    target: Path,
    settings: DropoutSettings,
    answers: Answers,
    on_progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Make preference pairs. Pairs that the target has already are counted and not made again.

    Args:
        source: JSONL of samples, or a folder of such files.
        target: preference JSONL, appended to; a torn last line is removed.
        settings: ratio, number of pairs.
        answers: answers requests.
        on_progress: called with the pairs that the target has, and those that it will have.
    Returns:
        `samples`, `pairs` in the target, `made` by this call, `identical` (continuations equal to the chosen answer,
        which make no pair).
    Raises:
        DataError: a bad line of the source or of the target.
    """
    samples = read_items(source, _fault)
    form = AnswerForm(
        key=_key, fault=_line_fault, request=lambda item, number: _request(item, number, settings),
        line=lambda item, text: _pair(item, text, settings.start_ratio),
    )  # fmt: skip
    count = settings.num_return_sequences
    counts = append_answers(target, samples, count, form, answers, on_progress=on_progress)
    pairs = count * len(samples) - counts["unused"]
    return {"samples": len(samples), "pairs": pairs, "made": counts["sampled"], "identical": counts["unused"]}


def answer_prefix(text: str, ratio: float) -> str:
    """The beginning of an answer: a share of its words, rounded down.

    Words are what single blanks separate, as upstream's; in a text with ideographs each of those counts as a word,
    where upstream's beginning of a Chinese answer is empty.
    """
    if not _IDEOGRAPH.search(text):
        words = text.split(" ")
        return " ".join(words[: int(len(words) * ratio)]).strip()
    ends = [unit.end() for unit in _UNIT.finditer(text)]
    kept = int(len(ends) * ratio)
    return text[: ends[kept - 1]].strip() if kept else ""


def _chosen(item: dict) -> str | None:
    return item.get("chosen", item.get("response"))


def _fault(item: dict) -> str | None:
    """Why an object is no sample; None if it is one."""
    if not isinstance(_chosen(item), str) or not _chosen(item).strip():
        return "chosen (text), or response in its place, is needed"
    try:
        prompt_turns(item)
        media_names(item)
    except ValueError as error:
        return str(error)
    return None


def _line_fault(line: dict) -> str | None:
    return None if isinstance(line.get("rejected"), str) else "no preference pair; use another file"


def _key(item: dict) -> str:
    medium = item.get("image") or item.get("video") or ""
    return json.dumps([medium, item.get("question", item.get("conversations")), _chosen(item)], ensure_ascii=False)


def _request(item: dict, number: int, settings: DropoutSettings) -> AnswerRequest:
    turns = prompt_turns(item)
    messages = messages_with_media(turns, item, settings.root) if settings.load_image else messages_without_media(turns)
    prefix = {"role": "assistant", "content": answer_prefix(_chosen(item), settings.start_ratio), "prefix": True}
    return AnswerRequest([*messages, prefix], answer_seed(_key(item), number, settings.seed))


def _pair(item: dict, text: str, ratio: float) -> dict | None:
    """The preference pair; None of equal answers."""
    chosen = _chosen(item)
    rejected = answer_prefix(chosen, ratio) + text
    if rejected.strip() == chosen.strip():
        return None
    kept = {name: value for name, value in item.items() if name != "response"}
    return {**kept, "chosen": chosen, "rejected": rejected}
