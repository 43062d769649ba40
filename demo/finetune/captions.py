"""Caption data set of the fine-tuning tutorial: rendered scenes with one short caption each, as COCO captions.

    python -m demo.finetune.captions FOLDER [--train 256] [--held-out 64]

Out: FOLDER/images, train.jsonl and held_out.jsonl (annotations), train.json and held_out.json (meta JSON), all in
upstream's format. The bundled checkpoint describes a scene by its shapes and their places; a caption has the shapes
alone, and their number first.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from demo.tiny import scenes

QUESTION = "Provide a one-sentence caption for the provided image."  # upstream's, of COCO captions
SEEDS = {"train": "captions", "held_out": "captions, held out"}
_BATCH = 16


@dataclass(frozen=True)
class Answer:
    """The answer to a held-out picture.

    Attributes:
        picture: file of the picture.
        expected: caption of the annotation.
        text: answer of the model.
    """

    picture: Path
    expected: str
    text: str


def caption(scene: scenes.Scene) -> str:
    """Caption of a scene, e.g. 'A blue square and an orange star.', shapes in reading order."""
    names = [f"{'an' if thing.color[0] in 'aeiou' else 'a'} {thing.color} {thing.shape}" for thing in scene.things]
    sentence = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return sentence[0].upper() + sentence[1:] + "."


def write(folder: str | Path, train: int = 256, held_out: int = 64) -> None:
    """Write the data set.

    Args:
        folder: made if it does not exist.
        train: number of training samples.
        held_out: number of held-out samples, of another seed.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, number in (("train", train), ("held_out", held_out)):
        rng = random.Random(SEEDS[name])
        lines = []
        for index in range(number):
            scene = scenes.objects_scene(rng)
            picture = f"{name}-{index:04d}.jpg"
            scenes.render(scene).save(folder / "images" / picture, quality=95)
            turns = [("human", f"<image>\n{QUESTION}"), ("gpt", caption(scene))]
            conversations = [{"from": role, "value": text} for role, text in turns]
            lines.append(json.dumps({"id": index, "image": picture, "conversations": conversations}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        meta = {"root": "images", "annotation": f"{name}.jsonl", "data_augment": False, "repeat_time": 1}
        meta = {"captions": {**meta, "length": number}}
        (folder / f"{name}.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def answers(model, tokenizer, folder: str | Path) -> list[Answer]:
    """Greedy answers to the held-out pictures of a data set that `write` made.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: of its checkpoint.
        folder: of the data set.
    """
    import numpy as np
    import paddle

    from paddle_internvl.media.images import image_tiles

    results = []
    lines = (Path(folder) / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    for first in range(0, len(lines), _BATCH):
        items = [json.loads(line) for line in lines[first : first + _BATCH]]
        pictures = [Path(folder) / "images" / item["image"] for item in items]
        tiles = [image_tiles(picture, model.config.tile_side, max_num=1) for picture in pictures]
        texts = model.batch_chat(
            tokenizer, paddle.to_tensor(np.concatenate(tiles)), [f"<image>\n{QUESTION}"] * len(items),
            {"max_new_tokens": 64}, num_patches_list=[len(each) for each in tiles],
        )  # fmt: skip
        expected = [item["conversations"][-1]["value"] for item in items]
        results += map(Answer, pictures, expected, texts)
    return results


def exact_match(results: list[Answer]) -> float:
    """Share of answers that equal the caption of the annotation."""
    return sum(result.text == result.expected for result in results) / len(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=256, help="training samples")
    parser.add_argument("--held-out", type=int, default=64, help="held-out samples")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.train, arguments.held_out)


if __name__ == "__main__":
    main()
