"""How often the tiny model is right, by kind of question, on scenes it has not been trained on.

    python -m demo.tiny.evaluate CKPT [--per-kind 100] [--bits 8|4] [--json FILE]

Every question is asked by itself, greedily, through `batch_chat`. An answer is right if it equals the expected text; a
box if its intersection over union with the thing's is at least 0.5. Small print is asked for twice: with tiles, and
with the picture as one tile, where it can't be read. Beside the kinds stand the wordings that no training saw, and
foreign questions, to which a refusal is right; --per-kind does not change their number.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import paddle

from demo.tiny.cases import Case, collect, foreign, paraphrases
from paddle_internvl.evaluation.scorers.boxes import iou
from paddle_internvl.media.images import image_tiles
from paddle_internvl.prompt.grounding import SCALE, parse_boxes

_BATCH = 16
_UNCOUNTED = ("small print, one tile", "new wordings", "foreign")  # kinds beside the total


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


def is_right(case: Case, given: str) -> bool:
    """Whether an answer without marks is right."""
    expected = without_marks(case.question.answer)
    if not case.question.answer.startswith("<ref>"):
        return given == expected
    found, (thing,) = (parse_boxes(text, (SCALE, SCALE)) for text in (given, expected))
    if [box.label for box in found] != [thing.label]:
        return False
    return iou(*((box.left, box.top, box.right, box.bottom) for box in (*found, thing))) >= 0.5


def evaluate(model, tokenizer, cases: list[Case]) -> tuple[dict[str, dict], list[dict]]:
    """Ask every case.

    Args:
        model: an `InternVLChatModel`.
        tokenizer: of its checkpoint.
        cases: in any order.
    Returns:
        Per kind the number of `questions` and the share `right`; and the wrong answers.
    """
    cases = sorted(cases, key=lambda case: (case.kind, len(case.pictures)))
    right: dict[str, list[bool]] = {}
    wrong = []
    while cases:
        alike = [case for case in cases[:_BATCH] if len(case.pictures) == len(cases[0].pictures)]
        cases = cases[len(alike) :]
        for case, given in zip(alike, answer(model, tokenizer, alike)):
            right.setdefault(case.kind, []).append(is_right(case, given))
            if not right[case.kind][-1]:
                expected = without_marks(case.question.answer)
                wrong.append({"kind": case.kind, "question": case.question.text, "expected": expected, "given": given})
    table = {kind: {"questions": len(hits), "right": round(sum(hits) / len(hits), 4)} for kind, hits in right.items()}
    return table, wrong


def block_bytes(model) -> int:
    """What the decoder blocks hold: the part that quantisation makes smaller."""
    tensors = model.language_model.model.layers.state_dict().values()
    return sum(tensor.numel().item() * tensor.element_size() for tensor in tensors)


def main() -> None:
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-kind", type=int, default=100, help="questions of each kind (default: 100)")
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
    cases = collect(arguments.per_kind) + paraphrases() + foreign()
    table, wrong = evaluate(model, AutoTokenizer.from_pretrained(folder), cases)
    for kind, row in table.items():
        print(f"{kind:24} {row['questions']:5} {row['right']:8.1%}")
    counted = [row for kind, row in table.items() if kind not in _UNCOUNTED]
    total = sum(row["questions"] for row in counted)
    print(f"{'all, small print tiled':24} {total:5} {sum(r['right'] * r['questions'] for r in counted) / total:8.1%}")
    print(f"decoder blocks: {block_bytes(model):,} bytes")
    if arguments.json:
        document = {"table": table, "block_bytes": block_bytes(model), "wrong": wrong}
        arguments.json.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
