"""Preference data set: pairs of a chosen and a rejected answer to one prompt.

In: a meta JSON whose annotation files are preference JSONL, a checkpoint folder. Out: `PreferenceDataset`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.training.collate import ANSWERS
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.mixture import DatasetSpec


class PreferenceDataset(SFTDataset):
    """Preference pairs of a mixture, one dict for each annotation line. Arguments: see `SFTDataset`.

    An annotation line has `question`, `chosen` and `rejected` (texts), and `image` (a path or a list of paths) or
    `video`, or neither. `conversations` of several turns that end with a question may take the place of `question`.

    A pair holds:
        chosen: input_ids, labels and position_ids, int64 [L], of the prompt with the chosen answer; only the answer has
            labels.
        rejected: the same with the rejected answer.
        num_tiles, image_flags, pixel_values, dataset, index: as of a sample; the pictures are those of both answers.

    Pairs are not padded, whatever `group_by_length` is.

    Source: upstream `internvl_chat_dpo.py`, `LazySupervisedDataset`.
    """

    def __init__(self, meta_path: str | Path, checkpoint_dir: str | Path, **data_arguments):
        super().__init__(meta_path, checkpoint_dir, **{**data_arguments, "group_by_length": True})

    def _sample(self, dataset: DatasetSpec, item: Mapping, rng: np.random.Generator, pixels: bool) -> dict:
        prompt = _prompt(item)
        conversations = [[*prompt, {"from": "gpt", "value": _answer(item, answer)}] for answer in ANSWERS]
        texts, media = self._builder.build_texts(dataset, item, conversations, rng, pixels)
        pairs = {answer: {**text, "labels": _last_answer(text["labels"])} for answer, text in zip(ANSWERS, texts)}
        return {**pairs, **media}


def _prompt(item: Mapping) -> list[Mapping]:
    """Turns before the answers."""
    question, turns = item.get("question"), item.get("conversations")
    if isinstance(question, str) and turns is None:
        return [{"from": "human", "value": question}]
    if question is not None or not isinstance(turns, list) or not turns:
        raise ValueError("question (text), or conversations (a list) in its place, is needed")
    if not isinstance(turns[-1], Mapping) or turns[-1].get("from") != "human":
        raise ValueError("conversations of a preference pair end with a question (from: human)")
    return turns


def _answer(item: Mapping, name: str) -> str:
    if not isinstance(item.get(name), str) or not item[name]:
        raise ValueError(f"{name}: a text is needed")
    return item[name]


def _last_answer(labels: np.ndarray) -> np.ndarray:
    """Labels of the last answer alone, which is the last run of learnt tokens."""
    learnt = np.flatnonzero(labels != IGNORED)
    breaks = np.flatnonzero(np.diff(learnt) > 1)
    start = learnt[breaks[-1] + 1] if len(breaks) else learnt[0]
    return np.where(np.arange(len(labels)) >= start, labels, IGNORED)
