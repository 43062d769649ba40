"""Questions about crowded scenes, at which the bundled checkpoint often fails: it was trained on four shapes at most.

    python -m demo.preferences.crowded FOLDER [--seed 0]

Out: FOLDER/images, train.jsonl and held_out.jsonl, questions with their answers as `curate sample` reads them; the
scenes of both come from different seeds. pairs.json, the meta JSON of the pairs that `curate pairs` makes of
answers.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from demo.tiny import questions, scenes

PICTURES = {"train": 200, "held_out": 100}  # of each split; six questions about each
PAIRS = "pairs/raw/answers_pairs_vqa_correctness_rules.jsonl"


def scene_questions(scene: scenes.Scene, rng: random.Random) -> list[questions.Question]:
    """Six questions about a scene: two counts, a place, yes or no, a colour and a shape."""
    asker, things = questions.Asker(rng), scene.things
    colored, shaped, placed, shown, filled, outlined = (rng.choice(things) for _ in range(6))
    color, shape = shown.color, rng.choice(things).shape
    there = any((thing.color, thing.shape) == (color, shape) for thing in things)
    same_color = sum(thing.color == colored.color for thing in things)
    same_shape = sum(thing.shape == shaped.shape for thing in things)
    return [
        asker.ask("count", "count color", str(same_color), color=colored.color),
        asker.ask("count", "count shape", str(same_shape), shape=shaped.shape),
        asker.ask("position", "where", asker.word(placed.position), color=placed.color, shape=placed.shape),
        asker.ask("yes/no", "is there", asker.yes(there), color=color, shape=shape),
        asker.ask("colour", "color at", asker.word(filled.color), position=filled.position),
        asker.ask("shape", "shape at", asker.word(outlined.shape), position=outlined.position),
    ]


def write(folder: str | Path, split: str, pictures: int, seed: int = 0) -> Path:
    """Write the questions of a split and their pictures.

    Args:
        folder: made if it does not exist.
        split: name of the JSONL, 'train' or 'held_out'; scenes depend on it.
        pictures: number of scenes.
        seed: of the scenes.
    Returns:
        The JSONL.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"crowded {split} {seed}")
    lines = []
    for index in range(pictures):
        scene = scenes.crowded_scene(rng)
        picture = f"images/{split}-{index:04d}.png"
        scenes.render(scene).save(folder / picture)
        for question in scene_questions(scene, rng):
            line = {"image": picture, "kind": question.kind, "question": question.text, "answer": question.answer}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / f"{split}.jsonl"


def write_all(folder: str | Path, seed: int = 0) -> None:
    """Write both splits, and pairs.json at the end. Arguments: see `write`."""
    for split, pictures in PICTURES.items():
        write(folder, split, pictures, seed)
    write_pairs_meta(folder)


def write_pairs_meta(folder: str | Path) -> None:
    """Write FOLDER/pairs.json, the meta JSON of the pairs that `run.align` makes."""
    folder = Path(folder).absolute()
    meta = {"pairs": {"root": str(folder), "annotation": str(folder / PAIRS), "repeat_time": 1}}
    (folder / "pairs.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    arguments = parser.parse_args()
    write_all(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
