"""Prompts: what a toolkit sends to an InternVL model for an item, and how its answer becomes a prediction."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Clip, Index, Item
from paddle_internvl.evaluation.prompt_forms import (
    UPSTREAM_FORMS,
    direct_text,
    reasoning_text,
    upstream_reasoning_text,
)

STYLES = ("InternVL2", "InternVL2_5", "MPO")  # families of checkpoints; the first two are asked the same
RULES = ("vlmevalkit", "internvl")
_TOTAL_TILES = 64  # of all pictures of a question
_MARK = "<image>"
_FINAL_ANSWER = re.compile(r"(?:Final answer:|Answer:)\s*(.*)", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt that can't be made; the message names the benchmark and the row."""


@dataclass(frozen=True)
class Prompt:
    """What is sent to the model for an item.

    Attributes:
        index: of the item.
        text: text of the user's turn with its `<image>` marks.
        pictures: sources that `media` opens; () for a clip.
        clip: the video, or None.
        frames: number of frames of the clip.
        max_num: most tiles of a picture before the limit is divided among several pictures.
        limits: most tiles of each picture, the thumbnail not counted.
        doubled: the first picture is doubled in width and height, bilinearly, before it is cut.
        joined: the tiles of all pictures stand behind one mark.
        max_new_tokens: most tokens of the answer.
    """

    index: Index
    text: str
    pictures: tuple[str | Path, ...]
    clip: Clip | None
    frames: int
    max_num: int
    limits: tuple[int, ...]
    doubled: bool
    joined: bool
    max_new_tokens: int


def render(
    item: Item,
    benchmark: Benchmark,
    style: str = "InternVL2_5",
    rules: str = "vlmevalkit",
    chain_of_thought: bool = False,
) -> Prompt:
    """The prompt of an item.

    Args:
        item: the row.
        benchmark: its benchmark.
        style: family of the checkpoint, one of `STYLES`.
        rules: toolkit, one of `RULES`.
        chain_of_thought: VLMEvalKit's USE_COT=1, upstream's `--cot`.
    Raises:
        PromptError: the item has no picture, or upstream's scripts do not have the benchmark.
    """
    if not item.pictures:
        raise PromptError(f"{benchmark.name}, row {item.index}: the row has no picture")
    if rules == "internvl":
        return _upstream_prompt(item, benchmark, chain_of_thought)
    text = _vlmevalkit_text(item, benchmark, style, chain_of_thought)
    count = len(item.pictures)
    limit = max(1, min(benchmark.max_num, _TOTAL_TILES // count))
    return Prompt(
        item.index, _numbered(text, count), item.pictures, None, 0, benchmark.max_num, (limit,) * count,
        benchmark.doubled, False, benchmark.max_new_tokens,
    )  # fmt: skip


def prediction(
    answer: str, benchmark: Benchmark, style: str = "InternVL2_5", rules: str = "vlmevalkit", chain_of_thought=False
) -> str:
    """The prediction that is scored: the final answer of a reasoning model, or the whole answer.

    Args:
        answer: text of the model.
        benchmark, style, rules, chain_of_thought: see `render`.
    """
    if rules == "internvl":
        reasoned = chain_of_thought and benchmark.upstream is not None and benchmark.upstream.chain_of_thought
    else:
        reasoned = _asks_reasoning(benchmark, style, chain_of_thought)
    if not reasoned or benchmark.question_type not in ("MCQ", "Y/N"):
        return answer
    match = _FINAL_ANSWER.search(answer)
    return (match[1] if match else answer).strip()


def _asks_reasoning(benchmark: Benchmark, style: str, chain_of_thought: bool) -> bool:
    return style == "MPO" and (chain_of_thought or benchmark.reasons)


def _vlmevalkit_text(item: Item, benchmark: Benchmark, style: str, chain_of_thought: bool) -> str:
    if benchmark.reasonable and _asks_reasoning(benchmark, style, chain_of_thought):
        return reasoning_text(item)
    return direct_text(item, benchmark.question_type, benchmark.suffix, chain_of_thought)


def _numbered(text: str, count: int, texts_behind: Sequence[str] = ()) -> str:
    """Text behind the marks of its pictures, which are numbered where there are several."""
    if count == 1:
        return "\n".join((f"{_MARK}\n{text}", *texts_behind))
    prefix = "".join(f"Image-{i}: {_MARK}\n" for i in range(1, count + 1))
    run = "".join(f"<Image-{i}>" for i in range(1, count + 1))
    return (prefix + text + run + "".join(texts_behind)).replace(run, "")


def _upstream_prompt(item: Item, benchmark: Benchmark, chain_of_thought: bool) -> Prompt:
    task = benchmark.upstream
    if task is None:
        raise PromptError(f"{benchmark.name}: upstream's scripts have no such benchmark; use --rules vlmevalkit")
    reasons = chain_of_thought and task.chain_of_thought
    text = upstream_reasoning_text(item) if reasons else UPSTREAM_FORMS[task.form](item)
    count = len(item.pictures)
    joined = task.form == "mmmu"
    if joined:
        limits = (task.max_num,) + (1,) * (count - 1)
    else:
        limits = (max(1, min(task.max_num, _TOTAL_TILES // count)),) * count
    if count > 1 and not joined:
        text = "".join(f"Image-{i}: {_MARK}\n" for i in range(1, count + 1)) + text
    elif _MARK not in text:
        text = f"{_MARK}\n{text}"
    return Prompt(
        item.index, text, item.pictures, None, 0, task.max_num, limits,
        joined, joined, 4096 if reasons else task.max_new_tokens,
    )  # fmt: skip
