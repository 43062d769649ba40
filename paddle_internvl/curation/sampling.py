"""Sampled answers: several responses to each question, by chain-of-thought prompts.

In: a JSONL of questions: `question`, `answer`, optionally `image` and anything else. Out: a JSONL of responses for
`curation.pairs`: the fields of the question, `question_orig`, the prompt as `question`, `response` and
`prompt_version`. Source: upstream's `mmpr_data_pipeline_correctness.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.final_answers import PROMPT_VERSIONS
from paddle_internvl.curation.jsonl import as_line, input_files, read_lines
from paddle_internvl.curation.sample_texts import picture_names
from paddle_internvl.curation.sampling_prompts import sampling_prompt
from paddle_internvl.training.mixture import DataError

# (prompt with <image> marks, files of its pictures, seed) of each answer -> texts
Answer = Callable[[Sequence[tuple[str, list[str], int]]], list[str]]


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of `sample_answers`.

    Attributes:
        prompt_version: key of `sampling_prompts.INSTRUCTIONS`.
        num_return_sequences: answers of a question.
        root: folder of the pictures.
        batch_size: answers that are sampled together.
        seed: of the sampling; the answer of a number to a question depends on it and on nothing else.
    """

    prompt_version: str
    num_return_sequences: int = 32
    root: Path = Path()
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        if self.prompt_version not in PROMPT_VERSIONS:
            raise ValueError(f"prompt_version {self.prompt_version!r}; use one of {', '.join(PROMPT_VERSIONS)}")


def sample_answers(
    source: Path,
    target: Path,
    settings: SamplingSettings,
    answer: Answer,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Sample answers to the questions of a file. Answers that the target has already are counted and not sampled again.

    Args:
        source: JSONL of questions, or a folder of such files.
        target: JSONL of responses, appended to; a torn last line is removed.
        settings: prompt version, number of answers.
        answer: answers prompts.
        on_progress: called with the answers that the target has, and those that it will have.
    Returns:
        `questions`, `answers` in the target, `sampled` by this call.
    Raises:
        DataError: a bad line of the source, or answers of another prompt version in the target.
    """
    questions = list(_questions(source))
    done = _sampled(target, settings.prompt_version)
    missing: list[tuple[dict, int]] = []
    total = settings.num_return_sequences * len(questions)
    for item in questions:
        present = min(done[_key(item, item["question"])], settings.num_return_sequences)
        done[_key(item, item["question"])] -= present  # the same question may come again
        missing += [(item, number) for number in range(present, settings.num_return_sequences)]
    on_progress(total - len(missing), total)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "a", encoding="utf-8") as stream:
        for first in range(0, len(missing), settings.batch_size):
            batch = missing[first : first + settings.batch_size]
            prompts = [_prompt(item, settings) for item, _ in batch]
            seeds = [_seed(item, number, settings.seed) for item, number in batch]
            files = [[str(settings.root / name) for name in picture_names(item)] for item, _ in batch]
            for (item, _), prompt, text in zip(batch, prompts, answer(list(zip(prompts, files, seeds))), strict=True):
                made = {"question_orig": item["question"], "question": prompt, "response": text}
                stream.write(as_line({**item, **made, "prompt_version": settings.prompt_version}))
            stream.flush()
            on_progress(total - len(missing) + first + len(batch), total)
    return {"questions": len(questions), "answers": total, "sampled": len(missing)}


def _questions(source: Path) -> Iterator[dict]:
    for file, line in ((path, line) for path in input_files(source) for line in read_lines(path)):
        fault = line.error or _fault(line.item)
        if fault:
            raise DataError(f"{file}:{line.number}: {fault}")
        yield line.item


def _fault(item: dict) -> str | None:
    """Why an object is no question; None if it is one."""
    if not isinstance(item.get("question"), str) or item.get("answer") is None:
        return "question (text) and answer are needed"
    if item.get("video"):
        return "clips can't be sampled yet; leave the line out"
    try:
        picture_names(item)
    except ValueError as error:
        return str(error)
    return None


def _sampled(target: Path, prompt_version: str) -> Counter:
    """Number of answers in the target by question."""
    counts: Counter = Counter()
    if not target.exists():
        return counts
    end = 0
    for line in read_lines(target):
        if not line.complete:
            break  # of an interrupted write
        if line.error:
            raise DataError(f"{target}:{line.number}: {line.error}")
        if line.item.get("prompt_version") != prompt_version:
            raise DataError(f"{target}:{line.number}: another prompt_version than {prompt_version}; use another file")
        counts[_key(line.item, line.item["question_orig"])] += 1
        end = line.offset + line.size
    with open(target, "r+b") as stream:
        stream.truncate(end)
    return counts


def _key(item: dict, question: str) -> str:
    return json.dumps([item.get("image") or "", question], ensure_ascii=False)


def _prompt(item: dict, settings: SamplingSettings) -> str:
    return sampling_prompt(item["question"], settings.prompt_version, len(picture_names(item)))


def _seed(item: dict, number: int, seed: int) -> int:
    text = f"{seed} {number} {_key(item, item['question'])}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
