"""Write log_probs.json: log-probabilities of given answers, from transformers' own InternVL on random weights.

    python -m tests.goldens.make_log_probs

Needs torch and transformers. Prompts and tiles are this project's (other goldens hold them to upstream); the network,
its weights in transformers' layout and the log-softmax are transformers' and torch's. Part of `make goldens`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from paddlenlp.transformers import AutoModel
from transformers import InternVLForConditionalGeneration

from convert.streaming import convert
from paddle_internvl.chat.messages import build_prompt
from tests.random_checkpoints import ROOT, random_checkpoint, tiny_config

CASES = ("qwen2", "llama")  # models that transformers implements under InternVL
PICTURE = {"type": "image", "image": "demo/assets/shapes.png"}
MESSAGES = [
    {"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "A circle."},
    {"role": "user", "content": "What color is it?"},
]
END = "<|im_end|>"


def answer_rows(tokenizer) -> list[list[int]]:
    """Token ids: two sentences with the end token, the end token alone, ids that no text has."""
    end = tokenizer.convert_tokens_to_ids(END)
    sentences = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in ("A red square.", "Two.")]
    return [*([*ids, end] for ids in sentences), [end], [7, 900, 7, 55, 321]]


def log_probs(model, prompt, answer: list[int]) -> list[float]:
    """Log-probability of each token of an answer, by one forward pass over prompt and answer."""
    ids = torch.tensor([[*prompt.ids, *answer]])
    pixels = torch.from_numpy(np.concatenate(prompt.pictures))
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels).logits[0].float().log_softmax(-1)
    first = len(prompt.ids) - 1
    return [float(logits[first + i, token]) for i, token in enumerate(answer)]


def golden(case: str, folder: Path) -> dict:
    """A row of the golden."""
    source = random_checkpoint(folder / "hf", tiny_config(case))
    convert(source, folder / "pd", to_paddle=True)
    convert(folder / "pd", folder / "native", to_paddle=False, layout="transformers")
    ours = AutoModel.from_pretrained(str(source))
    theirs = InternVLForConditionalGeneration.from_pretrained(folder / "native", torch_dtype=torch.float32).eval()
    prompt = build_prompt(ours, ours.tokenizer, MESSAGES, system="", max_num=2)
    answers = answer_rows(ours.tokenizer)
    scores = [log_probs(theirs, prompt, answer) for answer in answers]
    return {"case": case, "messages": MESSAGES, "prompt_ids": prompt.ids, "answers": answers, "log_probs": scores}


def main() -> None:
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            rows.append(golden(case, Path(temporary)))
    made_by = {"torch": torch.__version__, "transformers": transformers.__version__, "weights_seed": 0}
    text = json.dumps({"made_by": made_by, "rows": rows})
    (ROOT / "tests/goldens/log_probs.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
