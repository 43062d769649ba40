"""Sampled answers: several responses to each question, by chain-of-thought prompts.

In: a JSONL of questions: `question`, `answer`, optionally `image` or `video` and anything else. Out: a JSONL of
responses for `curation.pairs`: the fields of the question, `question_orig`, the prompt as `question`, `response` and
`prompt_version`. Source: upstream's `mmpr_data_pipeline_correctness.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.curation.answer_file import AnswerForm, Progress, answer_seed, append_answers, read_items
from paddle_internvl.curation.answering import AnswerRequest, Answers
from paddle_internvl.curation.final_answers import PROMPT_VERSIONS
from paddle_internvl.curation.prompt_messages import messages_with_media
from paddle_internvl.curation.sample_texts import media_names, picture_names
from paddle_internvl.curation.sampling_prompts import sampling_prompt


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of `sample_answers`.

    Attributes:
        prompt_version: key of `sampling_prompts.INSTRUCTIONS`.
        num_return_sequences: answers of a question.
        root: folder of the media.
        seed: of the sampling; the answer of a number to a question depends on it and on nothing else.
        skip_failed: count requests that an endpoint refuses instead of stopping.
    """

    prompt_version: str
    num_return_sequences: int = 32
    root: Path = Path()
    seed: int = 0
    skip_failed: bool = False

    def __post_init__(self):
        if self.prompt_version not in PROMPT_VERSIONS:
            raise ValueError(f"prompt_version {self.prompt_version!r}; use one of {', '.join(PROMPT_VERSIONS)}")


def sample_answers(
    source: Path,
    target: Path,
    settings: SamplingSettings,
    answers: Answers,
    on_progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Sample answers to the questions of a file. Answers that the target has already are counted and not sampled again.

    Args:
        source: JSONL of questions, or a folder of such files.
        target: JSONL of responses, appended to; a torn last line is removed.
        settings: prompt version, number of answers.
        answers: answers requests.
        on_progress: called with the answers that the target has, and those that it will have.
    Returns:
        `questions`, `answers` in the target, `sampled` by this call, `failed` requests.
    Raises:
        DataError: a bad line of the source, or answers of another prompt version in the target.
        ChatRequestError: a request that an endpoint refuses.
    """
    questions = read_items(source, _fault)
    form = AnswerForm(
        key=_key, fault=lambda line: _line_fault(line, settings.prompt_version),
        request=lambda item, number: _request(item, number, settings),
        line=lambda item, text: _line(item, text, settings),
    )  # fmt: skip
    count = settings.num_return_sequences
    counts = append_answers(target, questions, count, form, answers, settings.skip_failed, on_progress)
    total = count * len(questions) - counts["failed"]
    return {
        "questions": len(questions), "answers": total, "sampled": counts["sampled"], "failed": counts["failed"]
    }  # fmt: skip


def _fault(item: dict) -> str | None:
    """Why an object is no question; None if it is one."""
    if not isinstance(item.get("question"), str) or item.get("answer") is None:
        return "question (text) and answer are needed"
    try:
        media_names(item)
    except ValueError as error:
        return str(error)
    return None


def _line_fault(line: dict, prompt_version: str) -> str | None:
    if line.get("prompt_version") != prompt_version:
        return f"another prompt_version than {prompt_version}; use another file"
    return None


def _key(item: dict) -> str:
    """The medium and the question, of an item or of a line of the target."""
    return json.dumps(
        [item.get("image") or item.get("video") or "", item.get("question_orig", item["question"])], ensure_ascii=False
    )


def _prompt(item: dict, settings: SamplingSettings) -> str:
    return sampling_prompt(item["question"], settings.prompt_version, len(picture_names(item)))


def _request(item: dict, number: int, settings: SamplingSettings) -> AnswerRequest:
    messages = messages_with_media([("user", _prompt(item, settings))], item, settings.root)
    return AnswerRequest(messages, answer_seed(_key(item), number, settings.seed))


def _line(item: dict, text: str, settings: SamplingSettings) -> dict:
    made = {"question_orig": item["question"], "question": _prompt(item, settings), "response": text}
    return {**item, **made, "prompt_version": settings.prompt_version}
