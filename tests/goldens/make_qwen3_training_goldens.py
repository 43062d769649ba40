"""Write `tests/goldens/training/families/qwen3` and `qwen3_moe`: losses, gradients and runs of InternVL3.5's code, by
`make goldens`.

    python -m tests.goldens.make_qwen3_training_goldens --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL. Needs torch, transformers 4.55 and accelerate. The model,
in float32, is that of `tests/training/families.py`; the samples are this project's, whose labels other goldens hold to
upstream's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from convert.folder import token_id
from tests.goldens.make_goldens import QWEN3, certificate, import_upstream
from tests.training.families import GOLDENS, LATER, RUNS, family_checkpoint
from tests.training.loop import run_samples

_LAYER = "language_model.model.layers.1."
STORED = (f"{_LAYER}self_attn.", f"{_LAYER}mlp.gate.", "mlp1.")  # tensors that are stored whole; of others the norms


def batch_of(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Samples padded on the right, with a weight of 1 for each learnt token."""
    length = max(len(sample["input_ids"]) for sample in samples)

    def padded(name: str, value: int) -> torch.Tensor:
        rows = [list(sample[name]) + [value] * (length - len(sample[name])) for sample in samples]
        return torch.tensor(rows, dtype=torch.long)

    labels = padded("labels", -100)
    lengths = torch.tensor([len(sample["input_ids"]) for sample in samples])
    return {
        "pixel_values": torch.from_numpy(np.concatenate([sample["pixel_values"] for sample in samples])),
        "image_flags": torch.tensor(np.concatenate([sample["image_flags"] for sample in samples])).reshape(-1, 1),
        "input_ids": padded("input_ids", 0),
        "position_ids": padded("position_ids", 0),
        "attention_mask": torch.arange(length)[None] < lengths[:, None],
        "labels": labels,
        "loss_weight": (labels != -100).float(),
    }


def array(tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


class RecordingTrainer(Trainer):
    """HF's Trainer on samples in order; records learning rate, gradient norm and loss of every step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps: list[dict] = []
        self._losses: list[float] = []
        clip = self.accelerator.clip_grad_norm_

        def recording_clip(parameters, max_norm):
            norm = clip(parameters, max_norm)
            losses, self._losses = self._losses, []
            self.steps.append({
                "step": len(self.steps) + 1, "lr": self.optimizer.param_groups[0]["lr"],
                "grad_norm_before_clip": float(norm), "micro_losses": losses, "loss": float(np.mean(losses)),
            })  # fmt: skip
            return norm

        self.accelerator.clip_grad_norm_ = recording_clip

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, **_):
        loss = model(**inputs).loss
        self._losses.append(loss.item())
        return loss


def loss_golden(model, samples: list[dict]) -> tuple[dict, dict]:
    """Loss and norms of all gradients; gradients that are stored whole."""
    loss = model(**batch_of(samples)).loss
    loss.backward()
    gradients = {name: array(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    norms = {name: float(np.linalg.norm(value)) for name, value in gradients.items()}
    total = float(np.sqrt(sum(norm**2 for norm in norms.values())))
    whole = {name: value for name, value in gradients.items() if name.startswith(STORED)}
    return {"loss": loss.item(), "grad_global_norm": total, "grad_norms": norms}, whole


def run_golden(model, samples: list[dict]) -> tuple[dict, dict]:
    """Twelve steps with a frozen vision tower and the Trainer's decay groups."""
    for parameter in model.vision_model.parameters():
        parameter.requires_grad = False
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    initial = {name: array(p).copy() for name, p in trained.items()}
    settings = RUNS["full"]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, lr_scheduler_type="cosine", save_strategy="no", report_to=[], use_cpu=True,
            remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True, seed=0, **settings,
        )  # fmt: skip
        trainer = RecordingTrainer(model, arguments, data_collator=batch_of, train_dataset=samples)
        decayed = set(trainer.get_decay_parameter_names(model))
        trainer.train()
    final = {name: array(p) for name, p in trained.items()}
    out = {"settings": settings, "steps": trainer.steps, "without_decay": sorted(trained.keys() - decayed)}
    out["change_norms"] = {name: float(np.linalg.norm(value - initial[name])) for name, value in final.items()}
    with torch.no_grad():
        out["loss_of_first_two_samples_after"] = model(**batch_of(samples[:2])).loss.item()
    return out, {name: value for name, value in final.items() if name.startswith(STORED)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of OpenGVLab/InternVL")
    clone = parser.parse_args().upstream
    torch.set_num_threads(1)
    config_class, model_class = import_upstream(clone)[0][QWEN3]
    transformers.trainer.is_peft_available = lambda: False  # what is imported as peft is a stand-in
    with tempfile.TemporaryDirectory() as temporary:
        # The loss averages its weights over the ranks; one rank here.
        torch.distributed.init_process_group("gloo", init_method=f"file://{temporary}/ranks", rank=0, world_size=1)
        for name in LATER:
            family_golden(name, Path(temporary) / name, clone, config_class, model_class)
        torch.distributed.destroy_process_group()


def family_golden(name: str, folder: Path, clone: Path, config_class, model_class) -> None:
    """Losses, gradients and a run of one family."""
    family_checkpoint(folder, name)
    samples = run_samples(folder)
    fields = json.loads((folder / "config.json").read_text())

    def new_model():
        content = {k: v for k, v in fields.items() if k not in ("model_type", "torch_dtype", "system_message")}
        model = model_class(config_class(**content), use_flash_attn=False).float()
        model.load_state_dict(load_file(str(folder / "model.safetensors")), strict=True)
        model.img_context_token_id = token_id(folder, "<IMG_CONTEXT>")
        model.language_model.config.use_cache = False
        return model.train()

    content: dict = {"made_by": certificate(clone, weights_seed=0), "loss": {}, "runs": {}}
    arrays: dict[str, np.ndarray] = {}
    for case, chosen in (("sft", samples[:2]), ("sft_multi", samples[2:4])):
        content["loss"][case], whole = loss_golden(new_model(), chosen)
        arrays |= {f"{case}.grad.{key}": value for key, value in whole.items() if case == "sft"}
    content["runs"]["full"], whole = run_golden(new_model(), samples)
    arrays |= {f"full.final.{key}": value for key, value in whole.items()}
    (GOLDENS / f"families/{name}.json").write_text(json.dumps(content, separators=(",", ":")))
    np.savez_compressed(GOLDENS / f"families/{name}.npz", **arrays)


if __name__ == "__main__":
    main()
