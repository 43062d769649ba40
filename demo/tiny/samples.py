"""What a training step is shown: conversations about scenes as pixel tiles, ids, what of them is learnt, patch labels.

In: the tokenizer and a step's number, which alone decides what is drawn. Out: micro-batches of `Sample`s. No model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from demo.tiny import questions, scenes
from demo.tiny import tokenizer as tiny_tokenizer
from demo.tiny.architecture import GRID, MAX_TILES
from paddle_internvl.media.images import image_tiles
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.templates import ASSISTANT, get_conv_template

SEED = 20261121


class Sample:
    """One conversation as arrays: tiles as bytes' normalised values, ids, labels, and patch labels of some tiles."""

    def __init__(self, tokenizer, pictures, asked, patch_labels, num_image_token: int, prefix: str):
        tiles = [image_tiles(picture, scenes.SIDE, max_num=limit) for picture, limit in pictures]
        self.pixels = np.concatenate(tiles) if tiles else np.zeros((0, 3, scenes.SIDE, scenes.SIDE), np.float32)
        self.patch_labels = patch_labels
        conversation = get_conv_template(tiny_tokenizer.TEMPLATE)
        conversation.system_message = tiny_tokenizer.SYSTEM_MESSAGE
        for i, question in enumerate(asked):
            conversation.append_message(conversation.roles[0], (prefix if i == 0 else "") + question.text)
            conversation.append_message(conversation.roles[1], question.answer)
        encoded = encode(tokenizer, conversation, [len(t) * num_image_token for t in tiles])
        answers = [list(run) for writer, run in groupby(range(len(encoded.ids)), encoded.writers.__getitem__)
                   if writer == ASSISTANT]  # positions  # fmt: skip
        assert len(answers) == len(asked), asked
        self.ids = encoded.ids[: answers[-1][-1] + 1]
        self.weights = [0.0] * len(self.ids)  # of each id as something to be learnt
        self.pointers: list[tuple[int, int, tuple]] = []  # positions that should look at a box of a tile
        for question, answer in zip(asked, answers):
            for position in answer:
                # As upstream's loss_reduction "square": an answer of n tokens counts as sqrt(n), so that the many
                # tokens of descriptions do not drown the one of a colour or a place.
                self.weights[position] = len(answer) ** -0.5
            if question.box is not None:
                tile_count = len(tiles[question.picture])
                tile = sum(map(len, tiles[: question.picture])) + question.tile % tile_count
                self.pointers += [(position - 1, tile, question.box) for position in answer[:-1]]


def make_sample(tokenizer, rng: random.Random, kind: str, num_image_token: int, most: int) -> Sample:
    """A conversation of a kind: 'objects', 'text', 'wide', 'pair', 'clip' or 'talk'; 'lesson' is a picture alone."""
    patches: list[np.ndarray | None] = []
    if kind == "talk":
        return Sample(tokenizer, [], questions.talk_questions(rng, rng.randint(1, 3)), [], num_image_token, "")
    if kind == "pair":
        pair = [scenes.objects_scene(rng) for _ in range(2)]
        pictures = [(scenes.render(scene), 1) for scene in pair]
        asked = questions.pair_questions(pair, rng, 4)
        patches = [scenes.patch_labels(scene, GRID) for scene in pair]
        prefix = "Image-1: <image>\nImage-2: <image>\n"
    elif kind == "clip":
        frames, thing, motion = scenes.clip(rng, rng.choice((4, 4, 6)))
        pictures = [(scenes.render(scene), 1) for scene in frames]
        asked = questions.clip_questions(thing, motion, rng, 3)
        patches = [scenes.patch_labels(scene, GRID) for scene in frames]
        prefix = "".join(f"Frame{i + 1}: <image>\n" for i in range(len(frames)))
    elif kind == "lesson":
        scene = scenes.lesson_scene(rng)
        pictures, asked, prefix = [(scenes.render(scene), 1)], [], ""
        patches = [scenes.patch_labels(scene, GRID)]
    else:
        scene = {"objects": scenes.objects_scene, "text": scenes.text_scene, "wide": scenes.wide_scene}[kind](rng)
        scenes.thin_out(scene, most - (kind == "text"), rng)
        pictures = [(scenes.render(scene), MAX_TILES)]
        asked = questions.scene_questions(scene, rng, 6)
        if rng.random() < 0.75:  # else later answers could mostly be read off the description, without looking
            asked.sort(key=lambda question: question.kind == "description")
        patches = [scenes.patch_labels(scene, GRID)] if kind != "wide" else []
        prefix = "<image>\n"
    return Sample(tokenizer, pictures, asked, patches, num_image_token, prefix)


@dataclass(frozen=True)
class Phase:
    """A stretch of the training.

    Attributes:
        until: the step it ends before. learns: 'vision', 'projector', 'language' or 'all'.
        most: things in a scene, as far as scenes are of one tile. several: whether conversations about several tiles
            or pictures are among those shown.
    """

    until: int
    learns: str
    most: int = 4
    several: bool = False


def batches(tokenizer, step: int, num_image_token: int, phase: Phase) -> list[list[Sample]]:
    """A step's micro-batches: lessons; or conversations about one tile, and every other step some about several."""
    rng = random.Random(f"{SEED}-{step}")
    if phase.learns in ("vision", "projector"):
        kinds = [["lesson"] * 24 if phase.learns == "vision" else ["lesson"] * 6 + ["objects"] * 5 + ["text"] * 5]
    else:
        kinds = [[rng.choices(("objects", "text", "talk"), (11, 6, 1))[0] for _ in range(12)]]
        if phase.several and step % 2:
            kinds.append([["wide"] * 3, ["pair"] * 5, ["clip"] * 2, ["pair"] * 5][step // 2 % 4])
    return [[make_sample(tokenizer, rng, kind, num_image_token, phase.most) for kind in group] for group in kinds]
