"""Train the tiny InternVL from nothing on rendered scenes, on a CPU. Resumable.

    python -m demo.tiny.train RUN [--steps N]

RUN is a folder outside git: `tokenizer/` is made on the first call, `state.pdparams` is the resumable checkpoint and
`log.jsonl` has a line per report. The steps draw their data from (SEED, step), so a resumed run sees what an
uninterrupted one would. PHASES: the vision tower learns from per-patch labels, the projector to speak of patches in the
language model's words; then projector and language model learn to answer, about simple scenes first, and where to look;
then all of it.
What rests has no gradient at all: AdamW moves a parameter whose gradient is zero, by momentum and decay.
Export is `demo.tiny.export`'s business.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from paddle_internvl import startup

startup.import_paddle()

import numpy as np
import paddle
import paddle.nn.functional as F

from demo.tiny import tokenizer as tiny_tokenizer
from demo.tiny.architecture import CONFIG
from demo.tiny.lessons import HEAD, Words, patch_loss, pointing_loss, word_loss
from demo.tiny.samples import SEED, Phase, Sample, batches
from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.ops.dispatch import force
from paddle_internvl.tokenizers.internlm2 import InternLM2Tokenizer

PHASES = (
    Phase(2000, "vision"),
    Phase(2150, "projector"),
    Phase(2300, "language", most=1),
    Phase(2600, "language", most=2),
    Phase(3800, "language", several=True),
    Phase(4000, "all", several=True),
    Phase(7000, "language", several=True),
)
STEPS = PHASES[-1].until
LEARNING_RATE, WARM_UP, DECAY_FROM = 1e-3, 50, 5600  # every phase warms up; constant, then linearly to 0
LESSON_WEIGHT = 1.0  # beside the answers' loss
LOOKING_LAYER = 2  # the decoder layer whose heads are taught where to look
REPORT, SAVE = 25, 100


class Student(paddle.nn.Layer):
    """The model, and the heads that only its lessons need."""

    def __init__(self, tokenizer):
        super().__init__()
        self.model = InternVLNetwork(InternVLChatConfig(**CONFIG))
        self.model.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        self.words = Words(tokenizer)
        self.patch_head = paddle.nn.Linear(CONFIG["vision_config"]["hidden_size"], HEAD)
        self.word_scale = self.create_parameter([1], default_initializer=paddle.nn.initializer.Constant(1.0))
        self.word_bias = self.create_parameter([len(tokenizer)], is_bias=True)

    def rest(self, learns: str) -> None:
        """Stop the gradients of all parts but those that learn in a phase."""
        model = self.model
        parts = {"vision": model.vision_model, "projector": model.mlp1, "language": model.language_model}
        learning = {"all": set(parts), "language": {"projector", "language"}}.get(learns, {learns})
        for name, part in parts.items():
            for parameter in part.parameters():
                parameter.stop_gradient = name not in learning
                gently = name == "vision" and learns == "all"  # what it knows is of use already
                parameter.optimize_attr["learning_rate"] = 0.3 if gently else 1.0

    def losses(self, samples: list[Sample], learns: str) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Cross entropy of the answers, and what the lessons cost; 0 in a phase without them."""
        model, nothing = self.model, paddle.zeros([])
        hidden = model.vision_model.hidden_state(paddle.to_tensor(np.concatenate([s.pixels for s in samples])), -1)
        if learns == "language":
            answers, pointing = self._answer_loss(samples, hidden)
            return answers, pointing + nothing
        labelled, labels, start = [], [], 0
        for sample in samples:
            if sample.patch_labels:
                labelled += range(start, start + len(sample.patch_labels))
                labels += sample.patch_labels
            start += len(sample.pixels)
        seen = hidden.index_select(paddle.to_tensor(labelled), axis=0) if labels else None
        if learns == "projector":
            embeddings = model.get_input_embeddings().weight
            return nothing, word_loss(
                self.words, (self.word_scale, self.word_bias), model.project(seen), embeddings, labels
            )
        lesson = patch_loss(self.patch_head, seen, labels) if labels else nothing
        if learns == "vision":
            return nothing, lesson
        answers, pointing = self._answer_loss(samples, hidden)
        return answers, pointing + lesson

    def _answer_loss(self, samples: list[Sample], hidden: paddle.Tensor):
        """The answers' cross entropy, and the pointing loss."""
        model = self.model
        length = max(len(sample.ids) for sample in samples)
        ids = np.zeros((len(samples), length), np.int64)
        weights = np.zeros((len(samples), length), np.float32)
        for row, sample in enumerate(samples):
            ids[row, : len(sample.ids)] = sample.ids
            weights[row, : len(sample.ids)] = sample.weights
        embeds = model.embed(paddle.to_tensor(ids), model.project(hidden))
        # Padding stands behind every learnt token, so the causal rule hides it without a mask.
        positions = paddle.arange(length).expand([len(samples), length])
        looking = model.language_model.model.layers[LOOKING_LAYER].self_attn
        seen: list = []
        hook = looking.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        hidden = model.language_model.model(embeds, positions, None, None)
        hook.remove()
        contexts = [np.flatnonzero(row == model.img_context_token_id) for row in ids]
        pointers = [
            (row, position, contexts[row][tile * model.num_image_token], box)
            for row, sample in enumerate(samples)
            for position, tile, box in sample.pointers
        ]
        pointing = pointing_loss(looking, seen[0], pointers) if pointers else 0.0
        targets, weights = ids[:, 1:].flatten(), weights[:, 1:].flatten()
        learnt = np.flatnonzero(weights)
        hidden = hidden[:, :-1].flatten(0, 1).index_select(paddle.to_tensor(learnt), axis=0)
        logits, weights = model.language_model.lm_head(hidden), paddle.to_tensor(weights[learnt])
        loss = F.cross_entropy(logits, paddle.to_tensor(targets[learnt]), reduction="none")
        return (loss.flatten() * weights).sum() / weights.sum(), pointing


def phase_of(step: int) -> Phase:
    """The phase that a step belongs to."""
    return next((phase for phase in PHASES if step < phase.until), PHASES[-1])


def learning_rate(step: int, steps: int) -> float:
    """Share of LEARNING_RATE at a step: every phase warms up; constant, then linear to 0 at the end."""
    begun = max((phase.until for phase in PHASES if phase.until <= step), default=0)
    return min((step - begun + 1) / WARM_UP, 1.0, (steps - step) / (steps - DECAY_FROM))


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
    student = Student(tokenizer)
    student.train()
    initialise(student.model)
    schedule = paddle.optimizer.lr.LambdaDecay(LEARNING_RATE, lambda step: learning_rate(step, steps))
    optimizer = paddle.optimizer.AdamW(
        schedule, parameters=student.parameters(), weight_decay=0.02, beta2=0.98,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0), apply_decay_param_fun=lambda name: True,
    )  # fmt: skip
    state_file, first, seconds = run / "state.pdparams", 0, 0.0
    if state_file.exists():
        state = paddle.load(str(state_file))
        student.set_state_dict(state["student"])
        first, seconds = state["step"], state["seconds"]
        if phase_of(first) is phase_of(first - 1):
            optimizer.set_state_dict(state["optimizer"])
        else:  # Paddle refuses a state without the moments of what rested until now
            schedule.set_state_dict(state["optimizer"]["LR_Scheduler"])
    print(f"{sum(p.size for p in student.model.parameters()):,} parameters, from step {first} to {steps}", flush=True)
    sums, begun = [], time.time()
    with force(attention="reference"):
        for step in range(first, steps):
            phase = phase_of(step)
            student.rest(phase.learns)
            groups = batches(tokenizer, step, student.model.num_image_token, phase)
            count, answers, lessons = sum(map(len, groups)), 0.0, 0.0
            for group in groups:
                answer, lesson = student.losses(group, phase.learns)
                weight = len(group) / count
                (weight * (answer + LESSON_WEIGHT * lesson)).backward()
                answers, lessons = answers + weight * float(answer), lessons + weight * float(lesson)
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            schedule.step()
            sums.append((answers, lessons))
            if (step + 1) % REPORT == 0:
                means = np.mean(sums, axis=0)
                total = seconds + time.time() - begun
                line = {"step": step + 1, "answers": round(means[0], 4), "lessons": round(means[1], 4),
                        "lr": round(schedule.get_lr(), 6), "seconds": round(total)}  # fmt: skip
                with open(run / "log.jsonl", "a") as log:
                    log.write(json.dumps(line) + "\n")
                print(line, flush=True)
                sums = []
            if (step + 1) % SAVE == 0 or step + 1 == steps:
                state = {"student": student.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                         "seconds": seconds + time.time() - begun}  # fmt: skip
                paddle.save(state, str(state_file) + ".part")
                os.replace(str(state_file) + ".part", state_file)


if __name__ == "__main__":
    main()
