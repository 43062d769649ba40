"""Benchmark: one row of the table of benchmarks, as VLMEvalKit and as upstream's scripts run it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Families of checkpoints: the first two have the same prompts; Thinking is VLMEvalKit's InternVL3_5-*-Thinking
STYLES = ("InternVL2", "InternVL2_5", "MPO", "Thinking")
RULES = ("vlmevalkit", "internvl")  # toolkits of the prompts and scores


@dataclass(frozen=True)
class UpstreamTask:
    """A benchmark as upstream's evaluation scripts run it (`internvl_chat/eval`).

    Attributes:
        task: name of the task in `evaluate.sh`.
        file: file or folder of the data under upstream's `data/`.
        form: name of the text around the question in `prompt_forms.UPSTREAM_FORMS`.
        max_num: most tiles of a picture, without the thumbnail, as upstream's README sets it.
        max_new_tokens: most tokens of an answer.
        chain_of_thought: the script has `--cot`.
        reader: name of the reader of the file in `readers.READERS`.
        parts: stems of the JSONL files of the folder `file`, one a split.
        annotation: file of the reference answers under upstream's `data/`, where the file of questions lacks them.
    """

    task: str
    file: str
    form: str
    max_num: int = 6
    max_new_tokens: int = 100
    chain_of_thought: bool = False
    reader: str = "jsonl"
    parts: tuple[str, ...] = ()
    annotation: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One row of the table of benchmarks.

    Attributes:
        name: VLMEvalKit's name of the data set (`--data`).
        question_type: VLMEvalKit's type, which decides the text around a question: MCQ, Y/N, VQA, VIDEO, GROUNDING
            or CAPTION.
        max_num: most tiles of a picture, without the thumbnail, in VLMEvalKit's wrapper.
        scorers: name in `scorers.SCORERS` by name of the rules: "vlmevalkit" (December 2024, text kept) and
            "internvl" (upstream's scripts); rules without an entry have no scorer.
        judge: name of the judge's prompt in `judge_prompts`, or None where the rules need no judge.
        rows: published number of rows, or None where it is not known.
        cards: column of the card's table by name of the card.
        file: name of VLMEvalKit's file, or None where VLMEvalKit has none.
        question: question of rows that have none of their own.
        suffix: text that VLMEvalKit's wrapper puts behind the question of any type but MCQ and VIDEO.
        max_new_tokens: most tokens of an answer in VLMEvalKit's wrapper.
        reasoning_default: MPO models get their reasoning prompt without USE_COT.
        reasoning_allowed: MPO models get their reasoning prompt with USE_COT.
        doubled: the first picture is doubled in width and height (MMMU).
        video: name of the text around the question in `prompt_forms.VIDEO_FORMS`, or None for pictures.
        frames: frames of a clip, or None for pictures.
        subtitles: the subtitles of the sampled frames are part of the question.
        headline: the figure that the cards print.
        upstream: the benchmark in upstream's scripts, or None where they have none.
    """

    name: str
    question_type: str
    max_num: int
    scorers: Mapping[str, str]
    judge: str | None = None
    rows: int | None = None
    cards: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    question: str = ""
    suffix: str = ""
    max_new_tokens: int = 4096
    reasoning_default: bool = False
    reasoning_allowed: bool = True
    doubled: bool = False
    video: str | None = None
    frames: int | None = None
    subtitles: bool = False
    headline: str = "Overall"
    upstream: UpstreamTask | None = None
