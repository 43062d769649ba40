"""Prompts: what a toolkit sends to an InternVL model for an item, and how its answer becomes a prediction."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark, UpstreamTask
from paddle_internvl.evaluation.clips import subtitles_of
from paddle_internvl.evaluation.item import Clip, Index, Item
from paddle_internvl.evaluation.prompt_forms import (
    UPSTREAM_FORMS,
    direct_text,
    reasoning_text,
    upstream_reasoning_text,
)
from paddle_internvl.evaluation.video_forms import VIDEO_FORMS, upstream_mvbench_text
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.grid import choose_grid
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER
from paddle_internvl.prompt.thinking import THINKING_MESSAGE, split_thoughts

_TOTAL_TILES = 64  # of all pictures of a question
_REASONING_TOKENS = 4096  # most tokens of an answer to upstream's `--cot`
_THINKING_TOKENS = 65_536  # most tokens of thoughts and answer in VLMEvalKit
_NUMBERED_IMAGE = re.compile(r"Image-(?=[1-9])")
_FINAL_ANSWER = re.compile(r"(?:Final answer:|Answer:)\s*(.*)", re.IGNORECASE)


class PromptError(ValueError):
    """A prompt that can't be made; the message names the row.

    Args:
        index: of the item.
        reason: one line without the row.
    """

    def __init__(self, index: Index, reason: object):
        super().__init__(f"row {index}: {reason}")
        self.reason = str(reason)


@dataclass(frozen=True)
class Prompt:
    """What is sent to the model for an item.

    Attributes:
        index: of the item.
        text: text of the user's turn with its `<image>` marks.
        pictures: sources that `media` opens; () for a clip.
        max_num: most tiles of a picture before the limit is divided among several pictures.
        limits: most tiles of each picture or frame, the thumbnail not counted.
        max_new_tokens: most tokens of the answer.
        doubled: the first picture is doubled in width and height, bilinearly, before it is cut.
        joined: the tiles of all pictures stand behind one mark.
        clip: the video, or None.
        spread: how the frames of the clip are spread, see `clips.read_frames`.
        system: the system message; None: the model's.
    """

    index: Index
    text: str
    pictures: tuple[str | Path, ...]
    max_num: int
    limits: tuple[int, ...]
    max_new_tokens: int
    doubled: bool = False
    joined: bool = False
    clip: Clip | None = None
    spread: str = ""
    system: str | None = None


def render(
    item: Item,
    benchmark: Benchmark,
    style: str = "InternVL2_5",
    rules: str = "vlmevalkit",
    chain_of_thought: bool = False,
    frames: int | None = None,
) -> Prompt:
    """The prompt of an item.

    Args:
        item: the row.
        benchmark: its benchmark.
        style: family of the checkpoint, one of `benchmark.STYLES`.
        rules: toolkit, one of `benchmark.RULES`.
        chain_of_thought: VLMEvalKit's USE_COT=1, upstream's `--cot`.
        frames: of a clip; None: the benchmark's.
    Raises:
        PromptError: the item has no picture or clip.
        ValueError: upstream's scripts do not have the benchmark.
    """
    if not item.pictures and item.clip is None:
        raise PromptError(item.index, "the row has no picture")
    prompt = _prompt(item, benchmark, style, rules, chain_of_thought, frames)
    if style == "Thinking":
        prompt = replace(prompt, system=THINKING_MESSAGE, max_new_tokens=_THINKING_TOKENS)
    return prompt


def _prompt(
    item: Item, benchmark: Benchmark, style: str, rules: str, chain_of_thought: bool, frames: int | None
) -> Prompt:
    task = benchmark.upstream
    if rules == "internvl" and task is None:
        raise ValueError(f"{benchmark.name}: upstream's scripts have no such benchmark; use --rules vlmevalkit")
    if item.clip is not None:
        return _clip_prompt(item, benchmark, rules, frames or benchmark.frames)
    if rules == "internvl":
        return _upstream_prompt(item, task, chain_of_thought)
    text = _vlmevalkit_text(item, benchmark, style, chain_of_thought)
    limits = _divided(benchmark.max_num, len(item.pictures))
    return Prompt(
        item.index, _numbered([text], len(limits)), item.pictures, benchmark.max_num, limits, benchmark.max_new_tokens,
        doubled=benchmark.doubled,
    )  # fmt: skip


def prediction(
    answer: str, benchmark: Benchmark, style: str = "InternVL2_5", rules: str = "vlmevalkit", chain_of_thought=False
) -> str:
    """The prediction that is scored: the final answer of a reasoning model, or the whole answer without thoughts.

    Args:
        answer: text of the model.
        benchmark, style, rules, chain_of_thought: see `render`.
    """
    if style == "Thinking":
        return split_thoughts(answer).answer
    if rules == "internvl":
        reasoned = chain_of_thought and benchmark.upstream is not None and benchmark.upstream.chain_of_thought
    else:
        reasoned = _asks_reasoning(benchmark, style, chain_of_thought)
    if not reasoned or benchmark.question_type not in ("MCQ", "Y/N"):
        return answer
    match = _FINAL_ANSWER.search(answer)
    return (match[1] if match else answer).strip()


def _asks_reasoning(benchmark: Benchmark, style: str, chain_of_thought: bool) -> bool:
    return style == "MPO" and (chain_of_thought or benchmark.reasoning_default)


def _vlmevalkit_text(item: Item, benchmark: Benchmark, style: str, chain_of_thought: bool) -> str:
    if benchmark.reasoning_allowed and _asks_reasoning(benchmark, style, chain_of_thought):
        return reasoning_text(item)
    return direct_text(item, benchmark.question_type, benchmark.suffix, chain_of_thought, style == "Thinking")


def _divided(max_num: int, count: int) -> tuple[int, ...]:
    """Most tiles of each of several pictures, which share a limit of all tiles."""
    return (max(1, min(max_num, _TOTAL_TILES // count)),) * count


def _numbered(before: Sequence[str], count: int, behind: Sequence[str] = ()) -> str:
    """Texts before and behind pictures, with the pictures' marks moved to the front; several pictures are numbered."""
    if count == 1:
        return f"{IMAGE_PLACEHOLDER}\n" + "\n".join((*before, *behind))
    run = "".join(f"<Image-{i}>" for i in range(1, count + 1))
    return (_numbered_marks(count) + "".join(before) + run + "".join(behind)).replace(run, "")


def _numbered_marks(count: int) -> str:
    return "".join(f"Image-{i}: {IMAGE_PLACEHOLDER}\n" for i in range(1, count + 1))


def _clip_prompt(item: Item, benchmark: Benchmark, rules: str, frames: int) -> Prompt:
    form = VIDEO_FORMS[benchmark.video]
    if rules == "internvl":
        text, max_new_tokens = upstream_mvbench_text(item, frames), benchmark.upstream.max_new_tokens
    else:
        subtitles = _subtitles(item, form.spread, frames) if benchmark.subtitles else None
        texts = form.before(item, frames, subtitles), form.behind(item, frames, subtitles)
        text = _NUMBERED_IMAGE.sub("Frame-", _numbered(texts[0], frames, texts[1]))
        text = text.replace(form.removed, "") + form.ending
        max_new_tokens = benchmark.max_new_tokens
    return Prompt(
        item.index, text, (), benchmark.max_num, (1,) * frames, max_new_tokens,
        clip=item.clip, spread=form.spread,
    )  # fmt: skip


def _subtitles(item: Item, spread: str, frames: int) -> str:
    try:
        return subtitles_of(item.clip, frames, spread)
    except (OSError, ValueError) as error:
        raise PromptError(item.index, error) from None


def _is_cut(item: Item, max_num: int) -> bool:
    """Whether the picture of an item has several tiles."""
    try:
        picture = open_image(item.pictures[0])
    except (OSError, ValueError) as error:
        raise PromptError(item.index, error) from None
    return choose_grid(*picture.size, 1, max_num).tiles > 1


def _upstream_prompt(item: Item, task: UpstreamTask, chain_of_thought: bool) -> Prompt:
    reasons = chain_of_thought and task.chain_of_thought
    text = upstream_reasoning_text(item) if reasons else UPSTREAM_FORMS[task.form](item)
    count = len(item.pictures)
    joined = task.form == "mmmu"
    limits = (task.max_num,) + (1,) * (count - 1) if joined else _divided(task.max_num, count)
    if task.form == "pages" and count == 1:
        several = _is_cut(item, task.max_num)  # upstream numbers a single page by its tiles
    else:
        several = count > 1 and not joined
    if several:
        text = _numbered_marks(count) + text
    elif IMAGE_PLACEHOLDER not in text:
        text = f"{IMAGE_PLACEHOLDER}\n{text}"
    return Prompt(
        item.index, text, item.pictures, task.max_num, limits, _REASONING_TOKENS if reasons else task.max_new_tokens,
        doubled=joined, joined=joined,
    )  # fmt: skip
