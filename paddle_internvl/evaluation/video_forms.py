"""Texts around a question about a clip, before and behind its frames, as VLMEvalKit's data sets write them.

Source: VLMEvalKit 00e0cf87, `vlmeval/dataset/{mvbench,videomme,mmbench_video}.py`, `build_video_prompt` of the wrapper.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.prompt_forms import LETTER

_MVBENCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
_PREFILLED = "Best option:("
_ANSWER = "\nAnswer:"
_BEST_OPTION = "\nOnly give the best option."
_VIDEO_MME = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
    "letter (A, B, C, or D) of the correct option.\n"
)
_MMBENCH_VIDEO = (
    "\nYou will be provided with {} separate frames uniformly sampled from a video, the frames are provided in "
    "chronological order of the video.\nPlease analyze these images and provide the answer to the question about the "
    "video content.\nPlease directly reply with your response to the only question.\n"
)


@dataclass(frozen=True)
class VideoForm:
    """Texts of a video benchmark.

    Attributes:
        before, behind: texts before and behind the frames, by item, number of frames, and subtitles (None: the
            benchmark shows none).
        removed: text that the wrapper removes wherever it stands.
        ending: text that the wrapper puts behind all.
        spread: see `clips.read_frames`.
    """

    before: Callable[[Item, int, str | None], Sequence[str]]
    behind: Callable[[Item, int, str | None], Sequence[str]]
    removed: str
    ending: str
    spread: str


def upstream_mvbench_text(item: Item, frames: int) -> str:
    """Text of upstream's MVBench script, with the marks of its frames."""
    marks = "".join(f"Frame{i}: <image>\n" for i in range(1, frames + 1))
    return f"{marks}{_MVBENCH}\n{_options_question(item)}{_BEST_OPTION}"


def _options_question(item: Item) -> str:
    options = "".join(f"({letter}) {text}\n" for letter, text in item.options.items())
    return f"Question: {item.question}\nOptions:\n{options}".rstrip()


def _video_mme_behind(item: Item, _frames: int, subtitles: str | None) -> Sequence[str]:
    listed = "" if subtitles is None else f"This video's subtitles are listed below:\n{subtitles}\n"
    options = "\n".join(ast.literal_eval(item.columns["candidates"]))
    return f"\nThese are the frames of a video. {listed}{_VIDEO_MME}", f"Question: {item.question}\n{options}{_ANSWER} "


VIDEO_FORMS = {
    "mvbench": VideoForm(
        before=lambda item, frames, subtitles: (_MVBENCH, _options_question(item)),
        behind=lambda item, frames, subtitles: (_BEST_OPTION, _PREFILLED),
        removed=_PREFILLED,
        ending="",
        spread="middle",
    ),
    "video_mme": VideoForm(
        before=lambda item, frames, subtitles: ("",),
        behind=_video_mme_behind,
        removed=_ANSWER,
        ending=f"\n{LETTER}",
        spread="inner",
    ),
    "mmbench_video": VideoForm(
        before=lambda item, frames, subtitles: (_MMBENCH_VIDEO.format(frames),),
        behind=lambda item, frames, subtitles: (f"Question: {item.question}{_ANSWER} ",),
        removed=_ANSWER,
        ending="",
        spread="inner",
    ),
}
