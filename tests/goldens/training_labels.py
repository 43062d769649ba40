"""Labels of the conversation templates, by upstream's `preprocess_*` functions, and by the marks in the ids."""

from __future__ import annotations

import json

import numpy as np
from transformers import AutoTokenizer

from tests.goldens.training_upstream import item_function
from tests.training.families import GOLDENS

# Template and tokenizer of released members.
CASES = [
    ("Hermes-2", "qwen2"), ("internlm2-chat", "llama3"), ("internlm2-chat", "internlm2"), ("phi3-chat", "phi3"),
    ("internvl2_5", "qwen2"),
]  # fmt: skip


def tokenizer_of(name: str):
    if name == "internlm2":
        from internvl.model.internlm2.tokenization_internlm2 import InternLM2Tokenizer  # after `import_training`

        return InternLM2Tokenizer.from_pretrained(str(GOLDENS / "checkpoint"), add_eos_token=False)
    return AutoTokenizer.from_pretrained(str(GOLDENS / "tokenizers" / name), use_fast=False, add_eos_token=False)


def marked_answers(tokenizer, ids: list[int]) -> np.ndarray | None:
    """Mask of the answers and their end tokens, found by the tokens of the marks; None: a token crosses a header.

    Independent of upstream's functions, which throw a sample away where lengths of parts do not add up.
    """
    mask = np.zeros(len(ids), bool)
    chatml = tokenizer.convert_tokens_to_ids("<|im_start|>") not in (None, tokenizer.unk_token_id)
    start, end = ("<|im_start|>", "<|im_end|>") if chatml else ("<|assistant|>", "<|end|>")
    start, end = tokenizer.convert_tokens_to_ids(start), tokenizer.convert_tokens_to_ids(end)
    for k in np.flatnonzero(np.array(ids) == start):
        first = k + 1
        if chatml:  # the header's text; Phi-3's role tokens swallow the line break behind them
            while first < len(ids) and not tokenizer.decode(ids[k + 1 : first]).endswith("\n"):
                first += 1
            header = tokenizer.decode(ids[k + 1 : first]).lstrip(" ")
            if header.startswith("assistant\n") and header != "assistant\n":
                return None
            if header != "assistant\n":
                continue
        mask[first : ids.index(end, first) + 1 if end in ids[first:] else len(ids)] = True
    return mask


def label_goldens(train, made_by: dict) -> None:
    """Write labels.npz: ids, upstream's and the marks' masks of learnt tokens, and errors, of each case."""
    annotation = GOLDENS / "labels/input.jsonl"
    items = annotation.read_text(encoding="utf-8").splitlines()
    arrays, about = {}, {}
    for template, name in CASES:
        tokenizer = tokenizer_of(name)
        tokenizer.model_max_length = 2048
        side = 112 if name == "internlm2" else 56  # of the tiles of the checkpoint, and of the families
        sample_of = item_function(
            train, template, tokenizer, annotation, GOLDENS / "media", side**2 // 784, side, max_dynamic_patch=6
        )
        rows: dict[str, dict] = {}
        parts: dict[str, list] = {"ids": [], "learnt": [], "marked": []}
        for line in items:
            item = json.loads(line)
            try:
                sample = sample_of(item)
            except Exception as error:
                rows[item["id"]] = {"raises": type(error).__name__}
                continue
            ids = sample["input_ids"].tolist()
            assert sample["position_ids"].tolist() == list(range(len(ids))) or tokenizer.pad_token_id in ids
            learnt = sample["labels"].numpy() != -100
            assert (sample["labels"].numpy()[learnt] == np.array(ids)[learnt]).all()
            marked = marked_answers(tokenizer, ids)
            rows[item["id"]] = {"tokens": len(ids), "marked": marked is not None}
            for key, value in (("ids", ids), ("learnt", learnt), ("marked", learnt * 0 if marked is None else marked)):
                parts[key].append(np.asarray(value))
        case = f"{template}__{name}"
        about[case] = rows
        for key, values in parts.items():
            arrays[f"{case}.{key}"] = np.concatenate(values).astype(np.int16 if key == "ids" else bool)
    about = {"made_by": {**made_by, "max_seq_length": 2048, "max_dynamic_patch": 6}, "cases": about}
    (GOLDENS / "families").mkdir(exist_ok=True)
    np.savez_compressed(GOLDENS / "families/labels.npz", about=json.dumps(about), **arrays)
