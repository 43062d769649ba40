"""How often the tiny model is right, by kind of question, on scenes it has not been trained on.

    python -m demo.tiny.evaluate CKPT [--per-kind 200] [--bits 8|4] [--json FILE]

Every question is asked by itself, greedily, through `batch_chat`; an answer counts if it equals the expected text.
Small print is asked for twice: with tiles, and with the picture as one tile, where it can't be read.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from demo.tiny import questions, scenes
from paddle_internvl.media.images import image_tiles

SEED = "held out"  # training draws from other seeds
_BATCH = 16


@dataclass(frozen=True)
class Case:
    """A question about pictures, under the kind it is reported as. `max_num` limits each picture's tiles."""

    kind: str
    pictures: tuple[Image.Image, ...]
    prefix: str
    question: questions.Question
    max_num: int = 6


def cases(rng: random.Random) -> Iterator[Case]:
    """Cases without end, of every kind."""
    while True:
        for make in (scenes.objects_scene, scenes.text_scene):
            scene = make(rng)
            picture = scenes.render(scene)
            for question in questions.scene_questions(scene, rng, 4):
                yield Case(question.kind, (picture,), "<image>\n", question)
        scene = scenes.wide_scene(rng)
        picture = scenes.render(scene)
        for question in questions.scene_questions(scene, rng, 3):
            if question.kind == "reading":
                yield Case("small print, tiled", (picture,), "<image>\n", question)
                yield Case("small print, one tile", (picture,), "<image>\n", question, max_num=1)
        pair = [scenes.objects_scene(rng) for _ in range(2)]
        pictures = tuple(scenes.render(scene) for scene in pair)
        for question in questions.pair_questions(pair, rng, 2):
            yield Case(question.kind, pictures, "Image-1: <image>\nImage-2: <image>\n", question, max_num=1)
        frames, thing, motion = scenes.clip(rng, rng.choice((4, 6)))
        pictures = tuple(scenes.render(scene) for scene in frames)
        for question in questions.clip_questions(thing, motion, rng, 2):
            if question.kind == "motion":
                prefix = "".join(f"Frame{i + 1}: <image>\n" for i in range(len(frames)))
                yield Case("motion", pictures, prefix, question, max_num=1)
        for question in questions.talk_questions(rng, 1):
            yield Case("talk", (), "", question)


def collect(per_kind: int) -> list[Case]:
    """`per_kind` cases of every kind (which may repeat, small talk does)."""
    kept: dict[str, list[Case]] = {}
    wanted = len(questions.KINDS) + 2  # small print stands beside the kinds, twice
    for case in cases(random.Random(SEED)):
        group = kept.setdefault(case.kind, [])
        if len(group) < per_kind:
            group.append(case)
        if len(kept) == wanted and all(len(group) == per_kind for group in kept.values()):
            return [case for group in kept.values() for case in group]


def answer(model, tokenizer, batch: list[Case]) -> list[str]:
    """Greedy answers; cases of one batch have the same number of pictures."""
    side = model.config.tile_side
    if len(batch[0].pictures) < 2:
        tiles = [image_tiles(c.pictures[0], side, max_num=c.max_num) for c in batch if c.pictures]
        pixels = paddle.to_tensor(np.concatenate(tiles)) if tiles else None
        counts = [len(t) for t in tiles] or [0] * len(batch)
        asked = [case.prefix + case.question.text for case in batch]
        return model.batch_chat(tokenizer, pixels, asked, {"max_new_tokens": 96}, num_patches_list=counts)
    answers = []
    for case in batch:
        tiles = [image_tiles(picture, side, max_num=case.max_num) for picture in case.pictures]
        pixels, counts = paddle.to_tensor(np.concatenate(tiles)), [len(t) for t in tiles]
        asked = case.prefix + case.question.text
        answers.append(model.chat(tokenizer, pixels, asked, {"max_new_tokens": 96}, num_patches_list=counts))
    return answers


def without_marks(text: str) -> str:
    """`chat` leaves special tokens out of answers, and so out of the expected ones."""
    for mark in ("<ref>", "</ref>", "<box>", "</box>"):
        text = text.replace(mark, "")
    return text


def evaluate(model, tokenizer, per_kind: int) -> tuple[dict[str, dict], list[dict]]:
    """Per kind the number of questions and the share answered exactly; and what went wrong."""
    everything = sorted(collect(per_kind), key=lambda case: (case.kind, len(case.pictures)))
    right: dict[str, list[bool]] = {}
    wrong = []
    while everything:
        batch = [case for case in everything[:_BATCH] if len(case.pictures) == len(everything[0].pictures)]
        everything = everything[len(batch) :]
        for case, given in zip(batch, answer(model, tokenizer, batch)):
            expected = without_marks(case.question.answer)
            right.setdefault(case.kind, []).append(given == expected)
            if given != expected:
                wrong.append({"kind": case.kind, "question": case.question.text, "expected": expected, "given": given})
    table = {kind: {"questions": len(hits), "exact": round(sum(hits) / len(hits), 4)} for kind, hits in right.items()}
    return table, wrong


def block_bytes(model) -> int:
    """What the decoder blocks hold: the part that quantisation makes smaller."""
    tensors = model.language_model.model.layers.state_dict().values()
    return sum(tensor.numel().item() * tensor.element_size() for tensor in tensors)


def main() -> None:
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=200, help="questions of each kind")
    parser.add_argument("--bits", type=int, choices=(8, 4), help="hold the decoder blocks' linear weights in so many")
    parser.add_argument("--quantize-head", action="store_true", help="with --bits: the output head too")
    parser.add_argument("--int8-activations", action="store_true", help="with --bits: prefill and vision in int8")
    parser.add_argument("--dtype", help="of the arithmetic (default: float32 on a CPU)")
    parser.add_argument("--json", type=Path, help="write figures and wrong answers to this file")
    arguments = parser.parse_args()
    folder = str(arguments.checkpoint)
    model = AutoModel.from_pretrained(
        folder, dtype=arguments.dtype, load_in_8bit=arguments.bits == 8, load_in_4bit=arguments.bits == 4,
        quantize_head=arguments.quantize_head, int8_activations=arguments.int8_activations,
    )  # fmt: skip
    table, wrong = evaluate(model, AutoTokenizer.from_pretrained(folder), arguments.per_kind)
    for kind, row in table.items():
        print(f"{kind:24} {row['questions']:5} {row['exact']:8.1%}")
    counted = [row for kind, row in table.items() if kind != "small print, one tile"]
    total = sum(row["questions"] for row in counted)
    print(f"{'all, small print tiled':24} {total:5} {sum(r['exact'] * r['questions'] for r in counted) / total:8.1%}")
    print(f"decoder blocks: {block_bytes(model):,} bytes")
    if arguments.json:
        document = {"table": table, "block_bytes": block_bytes(model), "wrong": wrong}
        arguments.json.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
