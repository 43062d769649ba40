"""Train the tiny InternVL from nothing on rendered scenes, on a CPU. Resumable.

    python -m demo.tiny.train RUN [--steps N]

RUN is a folder outside git: `tokenizer/` is made on the first call, `state.pdparams` is the resumable checkpoint and
`log.jsonl` has a line per report. The steps draw their data from (SEED, step), so a resumed run sees what an
uninterrupted one would. Three phases: the vision tower learns alone, from per-patch labels (until VISION_UNTIL);
projector and language model learn to answer while it rests (until FROZEN_UNTIL); then all of it learns together.
Export is `demo.tiny.export`'s business.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path

from paddle_internvl import runtime

runtime.set_cpu_threads()
runtime.keep_freed_memory()

import numpy as np
import paddle
import paddle.nn.functional as F

from demo.tiny import questions, scenes
from demo.tiny import tokenizer as tiny_tokenizer
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.attention import use_backend
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.preprocess.image import image_tiles
from paddle_internvl.prompt.encode import encode_prompt
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

SEED = 20261121
VISION_UNTIL, FROZEN_UNTIL, STEPS = 2000, 5000, 6500
LEARNING_RATE, WARM_UP = 1e-3, 100
PATCH_LOSS_WEIGHT = 0.3
REPORT, SAVE = 25, 100
MAX_TILES = 6

CONFIG = {
    "architectures": ["InternVLChatModel"],
    "auto_map": {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
    },
    "model_type": "internvl_chat",
    "template": tiny_tokenizer.TEMPLATE,
    "system_message": tiny_tokenizer.SYSTEM_MESSAGE,
    "select_layer": -1,
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "force_image_size": scenes.SIDE,
    "dynamic_image_size": True,
    "use_thumbnail": True,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": MAX_TILES,
    "pad2square": False,
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": scenes.SIDE,
        "patch_size": 32,
        "num_channels": 3,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "drop_path_rate": 0.0,
        "torch_dtype": "bfloat16",
    },
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "bias": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "max_position_embeddings": 8192,
        "vocab_size": tiny_tokenizer.VOCABULARY + 9,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}
GRID = scenes.SIDE // CONFIG["vision_config"]["patch_size"]


class Sample:
    """One conversation as arrays: tiles as bytes' normalised values, ids, labels, and patch labels of some tiles."""

    def __init__(self, tokenizer, pictures, asked, patch_labels, num_image_token: int, prefix: str):
        tiles = [image_tiles(picture, scenes.SIDE, max_num=limit) for picture, limit in pictures]
        self.pixels = np.concatenate(tiles) if tiles else np.zeros((0, 3, scenes.SIDE, scenes.SIDE), np.float32)
        self.patch_labels = patch_labels
        conversation = get_conv_template(tiny_tokenizer.TEMPLATE)
        conversation.system_message = tiny_tokenizer.SYSTEM_MESSAGE
        stop = tokenizer.convert_tokens_to_ids(conversation.stop)
        ids: list[int] = []
        self.learn: list[bool] = []
        visual_tokens = [len(t) * num_image_token for t in tiles]
        for i, question in enumerate(asked):
            conversation.append_message(conversation.roles[0], (prefix if i == 0 else "") + question.text)
            conversation.append_message(conversation.roles[1], None)
            prompt = encode_prompt(tokenizer, conversation, visual_tokens)
            conversation.messages[-1] = (conversation.roles[1], question.answer)
            whole = encode_prompt(tokenizer, conversation, visual_tokens)
            assert whole[: len(prompt)] == prompt and stop in whole[len(prompt) :], question
            end = len(prompt) + whole[len(prompt) :].index(stop) + 1
            self.learn += [False] * (len(prompt) - len(ids)) + [True] * (end - len(prompt))
            ids = whole[:end]
        self.ids = ids


def make_sample(tokenizer, rng: random.Random, kind: str, num_image_token: int) -> Sample:
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
        asked = questions.clip_questions(thing, motion, rng, 2)
        patches = [scenes.patch_labels(scene, GRID) for scene in frames]
        prefix = "".join(f"Frame{i + 1}: <image>\n" for i in range(len(frames)))
    elif kind == "lesson":
        scene = scenes.lesson_scene(rng)
        pictures, asked, prefix = [(scenes.render(scene), 1)], [], ""
        patches = [scenes.patch_labels(scene, GRID)]
    else:
        scene = {"objects": scenes.objects_scene, "text": scenes.text_scene, "wide": scenes.wide_scene}[kind](rng)
        pictures = [(scenes.render(scene), MAX_TILES)]
        asked = questions.scene_questions(scene, rng, 6)
        patches = [scenes.patch_labels(scene, GRID)] if kind != "wide" else []
        prefix = "<image>\n"
    return Sample(tokenizer, pictures, asked, patches, num_image_token, prefix)


def batches(tokenizer, step: int, num_image_token: int) -> list[list[Sample]]:
    """The two micro-batches of a step: pictures of one tile, and conversations with several."""
    rng = random.Random(f"{SEED}-{step}")
    kinds = [rng.choices(("objects", "text", "talk"), (11, 6, 1))[0] for _ in range(16)]
    if step < VISION_UNTIL:
        return [[make_sample(tokenizer, rng, "lesson", num_image_token) for _ in range(24)]]
    many = {0: ["wide"] * 3, 1: ["pair"] * 6, 2: ["wide"] * 3, 3: ["clip"] * 3}[step % 4]
    return [[make_sample(tokenizer, rng, kind, num_image_token) for kind in group] for group in (kinds, many)]


def losses(model, patch_head, samples: list[Sample], step: int):
    """Cross entropy of the answers and of the patch labels, each 0 in the phase that it has no part in."""
    pixels = np.concatenate([sample.pixels for sample in samples])
    vision_rests = VISION_UNTIL <= step < FROZEN_UNTIL
    with paddle.set_grad_enabled(not vision_rests):
        hidden = model.vision_model.hidden_state(paddle.to_tensor(pixels), -1)
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
    """Mean cross entropy of what the patches show, over the tiles that have labels; 0 without any."""
    labelled, labels, start = [], [], 0
    for sample in samples:
        if sample.patch_labels:
            labelled += range(start, start + len(sample.patch_labels))
            labels += sample.patch_labels
        start += len(sample.pixels)
    if not labels:
        return paddle.zeros([])
    logits = patch_head(hidden.index_select(paddle.to_tensor(labelled), axis=0)[:, 1:])
    weight = paddle.ones([scenes.LABELS])
    weight[0] = 0.1  # most patches are background
    return F.cross_entropy(logits.flatten(0, 1), paddle.to_tensor(np.concatenate(labels)), weight=weight)


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
    patch_head = paddle.nn.Linear(CONFIG["vision_config"]["hidden_size"], scenes.LABELS)
    parameters = [*model.parameters(), *patch_head.parameters()]
    schedule = paddle.optimizer.lr.LinearWarmup(
        paddle.optimizer.lr.CosineAnnealingDecay(LEARNING_RATE, steps - WARM_UP, 1e-5), WARM_UP, 0.0, LEARNING_RATE
    )
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
            groups = batches(tokenizer, step, model.num_image_token)
            share = [len(group) for group in groups]
            for group in groups:
                answer_loss, patch_loss = losses(model, patch_head, group, step)
                weight = len(group) / sum(share)
                (weight * (answer_loss + PATCH_LOSS_WEIGHT * patch_loss)).backward()
                answer, patch = answer + weight * float(answer_loss), patch + weight * float(patch_loss)
            optimizer.step()
            optimizer.clear_grad()
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
