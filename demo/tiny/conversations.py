"""Training data of the bundled checkpoint: conversations about rendered scenes, in upstream's annotation format.

    python -m demo.tiny.conversations FOLDER [--samples 24000] [--seed 20261130]

Out: FOLDER/images, a JSONL of each kind of scene, and FOLDER/meta.json, a meta JSON of their mixture for
`paddle-internvl train`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from demo.tiny import questions, scenes

SYSTEM_MESSAGE = "You are InternVL-tiny."  # of the checkpoint's config.json
MAX_TILES = 6  # its max_dynamic_patch
# Share of the conversations, and most tiles of all pictures of one.
KINDS = {
    "objects": (0.30, 1), "text": (0.13, 1), "labels": (0.13, 1), "wide": (0.05, MAX_TILES),
    "wide_labels": (0.05, MAX_TILES), "pair": (0.09, 2), "clip": (0.11, MAX_TILES), "talk": (0.14, 1),
}  # fmt: skip
_SCENES = {
    "objects": scenes.objects_scene, "text": scenes.text_scene, "labels": scenes.labels_scene,
    "wide": scenes.wide_scene, "wide_labels": scenes.wide_labels_scene,
}  # fmt: skip


def conversation(kind: str, rng: random.Random) -> tuple[list[Image.Image], str, list[questions.Question]]:
    """One conversation.

    Args:
        kind: of `KINDS`.
        rng: decides all of it.
    Returns:
        Its pictures, the marks in front of the first question, and the questions.
    """
    if kind == "talk":
        asked = questions.talk_questions(rng, rng.randint(1, 2)) + questions.foreign_questions(rng, rng.randint(1, 3))
        rng.shuffle(asked)
        return [], "", asked
    if kind == "pair":
        pair = [scenes.objects_scene(rng) for _ in range(2)]
        asked = questions.pair_questions(pair, rng, 5)
        return list(map(scenes.render, pair)), questions.PAIR_MARKS, asked
    if kind == "clip":
        frames, thing, motion = scenes.clip(rng, rng.choice((4, 4, 6)))
        asked = _twice(lambda: questions.clip_questions(thing, motion, rng, 3), rng)
        return list(map(scenes.render, frames)), questions.frame_marks(len(frames)), asked
    scene = _SCENES[kind](rng)
    ask = questions.label_questions if "labels" in kind else questions.scene_questions
    asked = _twice(lambda: ask(scene, rng, rng.randint(3, 6)), rng)
    if rng.random() < 0.75:  # else later answers could mostly be read off the description, without looking
        asked.sort(key=lambda question: question.kind == "description")
    if rng.random() < 0.18:
        asked.insert(rng.randrange(len(asked) + 1), *questions.foreign_questions(rng, 1))
    return [scenes.render(scene)], "<image>\n", asked


def _twice(ask: Callable[[], list[questions.Question]], rng: random.Random) -> list[questions.Question]:
    """Questions of two calls, mixed, each call in its own language: more to learn of a picture than its tiles cost."""
    asked = questions.distinct([*ask(), *ask()])
    rng.shuffle(asked)
    return asked


def _sample(names: list[str], marks: str, asked: Iterable[questions.Question], rng: random.Random) -> dict:
    """A line of the annotation file; nine of ten with the checkpoint's system message, the others the template's."""
    turns = [{"from": "system", "value": SYSTEM_MESSAGE}] if rng.random() < 0.9 else []
    for index, question in enumerate(asked):
        turns.append({"from": "human", "value": (marks if index == 0 else "") + question.text})
        turns.append({"from": "gpt", "value": question.answer})
    return {"image": names, "conversations": turns} if names else {"conversations": turns}


def write(folder: Path, samples: int, seed: int) -> Path:
    """Write the data set.

    Args:
        folder: made if it does not exist.
        samples: conversations of all kinds.
        seed: of scenes and questions.
    Returns:
        The meta JSON.
    """
    folder = folder.absolute()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    meta = {}
    for kind, (share, tiles) in KINDS.items():
        lines = []
        for index in range(round(samples * share)):
            rng = random.Random(f"{seed} {kind} {index}")
            pictures, marks, asked = conversation(kind, rng)
            names = [f"{kind}-{seed}-{index:06d}-{number}.png" for number in range(len(pictures))]
            for name, picture in zip(names, pictures):
                picture.save(folder / "images" / name, compress_level=1)
            lines.append(json.dumps({"id": index, **_sample(names, marks, asked, rng)}, ensure_ascii=False) + "\n")
        (folder / f"{kind}.jsonl").write_text("".join(lines), encoding="utf-8")
        meta[kind] = {
            "root": str(folder / "images"), "annotation": str(folder / f"{kind}.jsonl"), "data_augment": False,
            "repeat_time": 1, "max_dynamic_patch": tiles, "length": len(lines),
        }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return folder / "meta.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=24000, help="conversations (default: 24000)")
    parser.add_argument("--seed", type=int, default=20261130, help="of scenes and questions")
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.samples, arguments.seed))


if __name__ == "__main__":
    main()
