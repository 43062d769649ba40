"""Train the tiny InternVL from nothing on rendered scenes, on a CPU. Resumable.

    python -m demo.tiny.train RUN [--steps N]

RUN is a folder outside git: `tokenizer/` is made on the first call, `state.pdparams` is the resumable checkpoint and
`log.jsonl` has a line per report. The steps draw their data from (SEED, step), so a resumed run sees what an
uninterrupted one would. Three phases: the vision tower learns alone, from per-patch labels (until VISION_UNTIL);
projector and language model learn to answer while it rests (until FROZEN_UNTIL); then all of it learns together.
What rests has no gradient at all: AdamW moves a parameter whose gradient is zero, by momentum and decay.
Export is `demo.tiny.export`'s business.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from paddle_internvl import runtime

runtime.set_cpu_threads()
runtime.keep_freed_memory()

import numpy as np
import paddle
import paddle.nn.functional as F

from demo.tiny import scenes
from demo.tiny import tokenizer as tiny_tokenizer
from demo.tiny.architecture import CONFIG, GRID
from demo.tiny.samples import SEED, Sample, batches
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.attention import use_backend
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

VISION_UNTIL, FROZEN_UNTIL, STEPS = 2000, 3000, 3600
LEARNING_RATE, WARM_UP, DECAY_FROM = 8e-4, 100, 2600  # warm-up, constant, then linearly to 0
PATCH_LOSS_WEIGHT = 0.3  # beside the answers' loss
REPORT, SAVE = 25, 100


def losses(model, patch_head, samples: list[Sample], step: int):
    """Cross entropy of the answers and of the patch labels, each 0 in the phase that it has no part in."""
    pixels = np.concatenate([sample.pixels for sample in samples])
    hidden = model.vision_model.hidden_state(paddle.to_tensor(pixels), -1)
    vision_rests = VISION_UNTIL <= step < FROZEN_UNTIL
    patch_loss = paddle.zeros([]) if vision_rests else patch_cross_entropy(patch_head, hidden, samples)
    if step < VISION_UNTIL:
        return paddle.zeros([]), patch_loss
    length = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), length), np.int64)
    targets = np.full((len(samples), length), -100, np.int64)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        targets[row, : len(sample.ids)] = np.where(sample.learn, sample.ids, -100)
    ids = paddle.to_tensor(ids)
    embeds = model.embed(ids, model.project(hidden))
    # Padding stands behind every learnt token, so the causal rule hides it without a mask.
    hidden = model.language_model.model(embeds, paddle.arange(length).expand([len(samples), length]), None, None)
    flat = targets[:, 1:].flatten()
    learnt = np.flatnonzero(flat != -100)
    hidden = hidden[:, :-1].flatten(0, 1).index_select(paddle.to_tensor(learnt), axis=0)
    return F.cross_entropy(model.language_model.lm_head(hidden), paddle.to_tensor(flat[learnt])), patch_loss


def patch_cross_entropy(patch_head, hidden: paddle.Tensor, samples: list[Sample]) -> paddle.Tensor:
    """Mean cross entropy of what the patches show and of their row and column, over the tiles that have labels; 0
    without any. Without row and column the tower forgets where a patch is, and no answer can name a place."""
    labelled, labels, start = [], [], 0
    for sample in samples:
        if sample.patch_labels:
            labelled += range(start, start + len(sample.patch_labels))
            labels += sample.patch_labels
        start += len(sample.pixels)
    if not labels:
        return paddle.zeros([])
    logits = patch_head(hidden.index_select(paddle.to_tensor(labelled), axis=0)[:, 1:])
    logits, rows, columns = logits.flatten(0, 1).split([scenes.LABELS, GRID, GRID], axis=-1)
    weight = paddle.ones([scenes.LABELS])
    weight[0] = 0.1  # most patches are background
    shown = F.cross_entropy(logits, paddle.to_tensor(np.concatenate(labels)), weight=weight)
    places = paddle.arange(GRID * GRID).tile(len(labels))
    return shown + 0.2 * (F.cross_entropy(rows, places // GRID) + F.cross_entropy(columns, places % GRID))


def rest(model, step: int) -> None:
    """Stop the gradients of the parts that do not learn at `step`."""
    for parameter in model.vision_model.parameters():
        parameter.stop_gradient = VISION_UNTIL <= step < FROZEN_UNTIL
    for part in (model.mlp1, model.language_model):
        for parameter in part.parameters():
            parameter.stop_gradient = step < VISION_UNTIL


def learning_rate(step: int, steps: int) -> float:
    """Share of LEARNING_RATE at a step: warm-up, constant, linear to 0 at the end."""
    return min(step / WARM_UP, 1.0, (steps - step) / (steps - DECAY_FROM))


def initialise(model) -> None:
    """Normal weights: linear ones by their input width, those that end a residual branch also by depth; positions large
    enough to be seen beside the patches. Norms and biases stay as built."""
    generator = np.random.default_rng(SEED)
    branch_ends = {
        "o_proj.weight": model.config.llm_config.num_hidden_layers,
        "down_proj.weight": model.config.llm_config.num_hidden_layers,
        "attn.proj.weight": model.config.vision_config.num_hidden_layers,
        "fc2.weight": model.config.vision_config.num_hidden_layers,
    }
    fixed = {"patch_embedding.weight": 0.01, "embed_tokens.weight": 0.2, "_embedding": 0.2, "lm_head.weight": 0.02}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        deviation = parameter.shape[0] ** -0.5
        deviation *= next(((2 * depth) ** -0.5 for end, depth in branch_ends.items() if name.endswith(end)), 1.0)
        deviation = next((value for end, value in fixed.items() if name.endswith(end)), deviation)
        parameter.set_value(generator.normal(0, deviation, parameter.shape).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the whole schedule")
    arguments = parser.parse_args()
    run, steps = arguments.run, arguments.steps
    if not (run / "tokenizer").exists():
        tiny_tokenizer.train(run / "tokenizer")
    tokenizer = InternLM2Tokenizer.from_pretrained(run / "tokenizer")
    paddle.seed(SEED)
    model = InternVLNetwork(InternVLChatConfig(**CONFIG))
    model.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    model.train()
    initialise(model)
    patch_head = paddle.nn.Linear(CONFIG["vision_config"]["hidden_size"], scenes.LABELS + 2 * GRID)
    parameters = [*model.parameters(), *patch_head.parameters()]
    schedule = paddle.optimizer.lr.LambdaDecay(LEARNING_RATE, lambda step: learning_rate(step, steps))
    optimizer = paddle.optimizer.AdamW(
        schedule, parameters=parameters, weight_decay=0.02, beta2=0.98, grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
        apply_decay_param_fun=lambda name: True,
    )  # fmt: skip
    state_file, first, seconds = run / "state.pdparams", 0, 0.0
    if state_file.exists():
        state = paddle.load(str(state_file))
        model.set_state_dict(state["model"])
        patch_head.set_state_dict(state["patch_head"])
        optimizer.set_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
    print(f"{sum(p.size for p in model.parameters()):,} parameters, from step {first} to {steps}", flush=True)
    sums, begun = [], time.time()
    with use_backend("plain"):
        for step in range(first, steps):
            answer, patch = 0.0, 0.0
            rest(model, step)
            groups = batches(tokenizer, step, model.num_image_token, lessons=step < VISION_UNTIL)
            share = [len(group) for group in groups]
            for group in groups:
                answer_loss, patch_loss = losses(model, patch_head, group, step)
                weight = len(group) / sum(share)
                (weight * (answer_loss + PATCH_LOSS_WEIGHT * patch_loss)).backward()
                answer, patch = answer + weight * float(answer_loss), patch + weight * float(patch_loss)
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            schedule.step()
            sums.append((answer, patch))
            if (step + 1) % REPORT == 0:
                means = np.mean(sums, axis=0)
                total = seconds + time.time() - begun
                line = {"step": step + 1, "answers": round(means[0], 4), "patches": round(means[1], 4),
                        "lr": round(schedule.get_lr(), 6), "seconds": round(total)}  # fmt: skip
                with open(run / "log.jsonl", "a") as log:
                    log.write(json.dumps(line) + "\n")
                print(line, flush=True)
                sums = []
            if (step + 1) % SAVE == 0 or step + 1 == steps:
                state = {"model": model.state_dict(), "patch_head": patch_head.state_dict(),
                         "optimizer": optimizer.state_dict(), "step": step + 1,
                         "seconds": seconds + time.time() - begun}  # fmt: skip
                paddle.save(state, str(state_file) + ".part")
                os.replace(str(state_file) + ".part", state_file)


if __name__ == "__main__":
    main()
