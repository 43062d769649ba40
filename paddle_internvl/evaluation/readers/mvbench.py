"""MVBench's JSON files of upstream's script: 20 tasks with their folders and kinds of media."""

import string
from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Clip, Item
from paddle_internvl.evaluation.readers.errors import ReadError
from paddle_internvl.evaluation.readers.jsonl import read_json

FRAMES_PER_SECOND = 3.0  # of folders of frames
# Name of the task -> folder of its clips under `video/`. The file is the name in lower case with underscores.
TASKS = {
    "Action Sequence": "star/Charades_v1_480",
    "Action Prediction": "star/Charades_v1_480",
    "Action Antonym": "ssv2_video",
    "Fine-grained Action": "Moments_in_Time_Raw/videos",
    "Unexpected Action": "FunQA_test/test",
    "Object Existence": "clevrer/video_validation",
    "Object Interaction": "star/Charades_v1_480",
    "Object Shuffle": "perception/videos",
    "Moving Direction": "clevrer/video_validation",
    "Action Localization": "sta/sta_video",
    "Scene Transition": "scene_qa/video",
    "Action Count": "perception/videos",
    "Moving Count": "clevrer/video_validation",
    "Moving Attribute": "clevrer/video_validation",
    "State Change": "perception/videos",
    "Fine-grained Pose": "nturgbd",
    "Character Order": "perception/videos",
    "Egocentric Navigation": "vlnqa",
    "Episodic Reasoning": "tvqa/frames_fps3_hq",
    "Counterfactual Inference": "clevrer/video_validation",
}
_BOUNDED = {  # a part of the clip is asked about
    "Action Sequence", "Action Prediction", "Object Interaction", "Action Localization", "Episodic Reasoning",
}  # fmt: skip
_FRAMES = {"Episodic Reasoning"}  # the clips are folders of frames


def read_mvbench(benchmark: Benchmark, place: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of `<task>.json`, with the index `<task>/<record from 0>`, in upstream's order of the tasks.

    Raises:
        ReadError: no file of a task, or a record without a field; names file and record.
    """
    folder = place.parent if place.is_file() else place / "json" if (place / "json").is_dir() else place
    files = {task: folder / f"{_stem(task)}.json" for task in TASKS}
    present = {task: file for task, file in files.items() if file == place or place.is_dir() and file.is_file()}
    if not present:
        raise ReadError(f"{place}: there is no file of a task of MVBench, such as {_stem(next(iter(TASKS)))}.json")
    for task, file in present.items():
        for number, record in enumerate(read_json(file)):
            yield _item(task, file, number, record, pictures)


def _stem(task: str) -> str:
    return task.lower().replace(" ", "_").replace("-", "_")


def _item(task: str, file: Path, number: int, record: dict, pictures: bool) -> Item:
    needed = ["video", "question", "candidates", "answer", *(("start", "end") if task in _BOUNDED else ())]
    missing = [name for name in needed if name not in record]
    if missing:
        raise ReadError(f"{file}, record {number}: there is no field {missing[0]!r}")
    options = dict(zip(string.ascii_uppercase, record["candidates"]))
    bound = (record["start"], record["end"]) if task in _BOUNDED else (None, None)
    rate = FRAMES_PER_SECOND if task in _FRAMES else None
    return Item(
        f"{task}/{number}", record["question"], record["answer"], options, category=task,
        clip=Clip(_clip_path(task, file, record["video"]), *bound, rate) if pictures else None,
        columns={"task_type": task, "video": record["video"], "candidates": repr(record["candidates"])},
    )  # fmt: skip


def _clip_path(task: str, file: Path, name: str) -> Path:
    root = file.parent.parent if file.parent.name == "json" else file.parent
    folders = [root / "video" / TASKS[task], root / TASKS[task], root / "video", root]
    return next((folder / name for folder in folders if (folder / name).exists()), folders[0] / name)
