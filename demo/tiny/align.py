"""Preference optimisation (MPO) of the tiny model on its own errors: sampled answers -> preference pairs -> training.

    python -m demo.tiny.align CKPT FOLDER [--questions 1600] [--seed 20261132]

In: a trained checkpoint, and new scenes of `demo.tiny.conversations`. Out: FOLDER/mpo, the trained checkpoint. Boxes
are left out: answers are compared as text. A run that was interrupted continues with the same call.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from demo.preferences.crowded import write_pairs_meta
from demo.preferences.run import align
from demo.tiny import conversations

RECIPE = "demo/tiny/mpo.json"
_WEIGHTS = {"objects": 5, "text": 3, "wide": 1, "pair": 1, "clip": 1}  # of the kinds of scenes


def write(folder: Path, number: int, seed: int) -> None:
    """Write FOLDER/train.jsonl, single questions, and pairs.json, the meta JSON of the pairs to come.

    Args:
        folder: made if it does not exist.
        number: questions.
        seed: of the scenes.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, lines, scene = random.Random(f"{seed} questions"), [], 0
    while len(lines) < number:
        (kind,) = rng.choices(list(_WEIGHTS), _WEIGHTS.values())
        pictures, marks, asked = conversations.conversation(kind, rng)
        names = [f"images/{scene:05d}-{index}.png" for index in range(len(pictures))]
        for name, picture in zip(names, pictures):
            picture.save(folder / name)
        for question in asked:
            if question.kind not in ("box", "foreign"):
                line = {"image": names, "kind": question.kind, "question": marks + question.text}
                lines.append(json.dumps({**line, "answer": question.answer}, ensure_ascii=False) + "\n")
        scene += 1
    (folder / "train.jsonl").write_text("".join(lines[:number]), encoding="utf-8")
    write_pairs_meta(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=1600, help="questions to sample answers to (default: 1600)")
    parser.add_argument("--seed", type=int, default=20261132, help="of scenes, sampling and training")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if not (folder / "pairs.json").is_file():
        write(folder, arguments.questions, arguments.seed)
    print(align(folder, arguments.seed, arguments.checkpoint, RECIPE, conversations.MAX_TILES))


if __name__ == "__main__":
    main()
