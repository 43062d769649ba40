"""Write `tests/goldens/training/families`: upstream's labels, losses, gradients and training runs. `make goldens`.

    python -m tests.goldens.make_training_goldens --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL. Needs torch, transformers 4.37.2 and peft 0.10.0, the
versions of upstream's training. The models are those of `tests/training/families.py`, in float32. Every JSON file holds
its birth certificate under `made_by`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import set_seed

from tests.goldens.training_labels import label_goldens
from tests.goldens.training_upstream import import_training, item_function
from tests.training.families import FAMILIES, GOLDENS, RUNS, family_checkpoint

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "pillow", "torchvision")
STORED = ("language_model.model.layers.1.", "mlp1.")  # tensors that are stored whole; of the others the norms


def certificate(clone: Path, **more) -> dict:
    """Versions and commit that made a golden."""
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"upstream": commit, **{name: version(name) for name in PACKAGES}, "weights_seed": 0, **more}


class Upstream:
    """Upstream's model, samples and batches of a family.

    Args:
        train: upstream's `internvl_chat_finetune`.
        name: of the family.
        folder: of its checkpoint.
    """

    def __init__(self, train, name: str, folder: Path):
        self.train, self.name, self.folder = train, name, folder
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=False, add_eos_token=False)
        self.tokenizer.model_max_length = 1024
        config = json.loads((folder / "config.json").read_text())
        self.tokens_per_tile = int((config["force_image_size"] // config["vision_config"]["patch_size"]) ** 2 / 4)
        item = item_function(
            train, FAMILIES[name].template, self.tokenizer, GOLDENS / "sft_run/train.jsonl", GOLDENS / "media",
            self.tokens_per_tile, image_size=config["force_image_size"], max_dynamic_patch=4,
        )  # fmt: skip
        lines = (GOLDENS / "sft_run/train.jsonl").read_text(encoding="utf-8").splitlines()
        self.samples = [item(json.loads(line)) for line in lines]
        for k, sample in enumerate(self.samples):
            assert (sample["labels"] != -100).any(), f"{name}: sample {k} is thrown away"

    def model(self, attention: str = "eager"):
        """The model in training mode, from its random weights."""
        fields = json.loads((self.folder / "config.json").read_text())
        config = self.train.InternVLChatConfig(
            **{key: value for key, value in fields.items() if key not in ("model_type", "torch_dtype")}
        )
        config.llm_config._attn_implementation = attention
        model = self.train.InternVLChatModel(config, use_flash_attn=False)
        model.load_state_dict(load_file(str(self.folder / "model.safetensors")), strict=True)
        model.img_context_token_id = self.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        model.language_model.config.use_cache = False
        return model.train()

    def padded(self, numbers) -> dict:
        """Batch of samples, by upstream's collator."""
        return self.train.concat_pad_data_collator([dict(self.samples[k]) for k in numbers])

    def packed(self, numbers) -> dict:
        """Pack of samples with square averaging, by upstream's collator."""
        parts = [self.samples[k] for k in numbers]
        names = ("input_ids", "labels", "position_ids", "pixel_values", "image_flags")
        pack = {name: torch.cat([part[name] for part in parts]) for name in names}
        lengths = torch.tensor([len(part["input_ids"]) for part in parts])
        pack["data_index"] = torch.arange(len(parts)).repeat_interleave(lengths)
        pack["type_ids"] = torch.zeros_like(pack["data_index"])
        pack.update(worker_state_key=None, worker_state_dict=None, custom_infos=None)
        batch = self.train.packed_collate_fn(
            [pack], self.train.concat_pad_data_collator, max_item_length=0, micro_num=1,
            len2weight=lambda n: self.train.len2weight(n, "square"),
        )  # fmt: skip
        assert (batch["input_ids"][0] == pack["input_ids"]).all()
        return batch


def array(tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def loss_golden(model, batch: dict) -> tuple[dict, dict]:
    """Loss and norms of all gradients; gradients that are stored whole."""
    loss = model(**batch).loss
    loss.backward()
    gradients = {name: array(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    norms = {name: float(np.linalg.norm(value)) for name, value in gradients.items()}
    total = float(np.sqrt(sum(norm**2 for norm in norms.values())))
    whole = {name: value for name, value in gradients.items() if name.startswith(STORED)}
    return {"loss": loss.item(), "grad_global_norm": total, "grad_norms": norms}, whole


class RecordingTrainer(Trainer):
    """HF's Trainer on samples in order; records learning rate, gradient norm and loss of every step."""

    def __init__(self, *args, decay_all: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self.decay_all, self.steps = decay_all, []
        self._micro_losses: list[float] = []
        clip = self.accelerator.clip_grad_norm_

        def recording_clip(parameters, max_norm):
            norm = clip(parameters, max_norm)
            losses, self._micro_losses = self._micro_losses, []
            self.steps.append({
                "step": len(self.steps) + 1, "lr": self.optimizer.param_groups[0]["lr"],
                "grad_norm_before_clip": float(norm), "micro_losses": losses, "loss": float(np.mean(losses)),
            })  # fmt: skip
            return norm

        self.accelerator.clip_grad_norm_ = recording_clip

    def _get_train_sampler(self):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def get_decay_parameter_names(self, model):
        if self.decay_all:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def compute_loss(self, model, inputs, return_outputs=False):
        loss = super().compute_loss(model, inputs)
        self._micro_losses.append(loss.item())
        return loss


def freeze(module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad = False


def saved_adapter(model) -> dict:
    """Config and names of tensors of the adapter as PEFT saves it."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        return {"adapter_config": config, "adapter_keys": sorted(load_file(f"{folder}/adapter_model.safetensors"))}


def run_golden(upstream: Upstream, run: str) -> tuple[dict, dict]:
    """Twelve steps of a run: steps, changes of all trained tensors; tensors that are stored whole."""
    settings, model = RUNS[run], upstream.model()
    freeze(model.vision_model)
    if run in ("mlp", "lora"):
        freeze(model.language_model)
    if run == "lora":
        freeze(model.mlp1)
        set_seed(0)
        model.wrap_llm_lora(r=settings["lora"]["r"], lora_alpha=settings["lora"]["alpha"], lora_dropout=0.0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    initial = {name: array(p).copy() for name, p in trained.items()}
    with tempfile.TemporaryDirectory() as output:
        own = {name: value for name, value in settings.items() if name != "lora"}
        arguments = TrainingArguments(
            output, lr_scheduler_type="cosine", save_strategy="no", report_to=[],
            use_cpu=True, remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True, seed=0, **own,
        )  # fmt: skip
        trainer = RecordingTrainer(
            model, arguments, data_collator=upstream.train.concat_pad_data_collator,
            train_dataset=[dict(sample) for sample in upstream.samples], decay_all=run == "full_one_group",
        )  # fmt: skip
        decayed = set(trainer.get_decay_parameter_names(model))
        trainer.train()
    out = {"settings": settings, "steps": trainer.steps, "without_decay": sorted(trained.keys() - decayed)}
    final = {name: array(p) for name, p in trained.items()}
    out["change_norms"] = {name: float(np.linalg.norm(value - initial[name])) for name, value in final.items()}
    whole = {f"final.{name}": v for name, v in final.items() if run == "lora" or name.startswith(STORED)}
    first = upstream.padded([0, 1])
    with torch.no_grad():
        out["loss_of_first_two_samples_after"] = model(**first).loss.item()
        if run == "lora":
            whole |= {f"init.{name}": value for name, value in initial.items()}
            out["unmerged_state_dict_keys"] = {name: list(value.shape) for name, value in model.state_dict().items()}
            out |= saved_adapter(model.language_model)
            merged = model.language_model.merge_and_unload()
            model.language_model = merged
            out["loss_of_first_two_samples_merged"] = model(**first).loss.item()
            base = load_file(str(upstream.folder / "model.safetensors"))
            changed = {name: array(p) for name, p in merged.named_parameters(prefix="language_model")}
            changed = {name: value for name, value in changed.items() if (value != base[name].numpy()).any()}
            out["merged_change_norms"] = {
                name: float(np.linalg.norm(value - base[name].numpy())) for name, value in changed.items()
            }
            whole |= {f"merged.{name}": value for name, value in changed.items() if name.startswith(STORED)}
    return out, whole if run != "full_one_group" else {}


def family_golden(train, clone: Path, name: str) -> None:
    """Losses, gradients and runs of a family."""
    with tempfile.TemporaryDirectory() as temporary:
        upstream = Upstream(train, name, family_checkpoint(Path(temporary) / "hf", name))
        content: dict = {"made_by": certificate(clone), "loss": {}, "runs": {}}
        arrays: dict[str, np.ndarray] = {}
        for case, numbers in (("sft", [0, 1]), ("sft_multi", [2, 3])):
            content["loss"][case], whole = loss_golden(upstream.model(), upstream.padded(numbers))
            arrays |= {f"{case}.grad.{key}": value for key, value in whole.items() if case == "sft"}
        model = upstream.model("flash_attention_2")
        content["loss"]["packed_square"], _ = loss_golden(model, upstream.packed([0, 1, 2, 3]))
        for run in RUNS:
            if run != "lora" or name != "llama":
                content["runs"][run], whole = run_golden(upstream, run)
                arrays |= {f"{run}.{key}": value for key, value in whole.items()}
    folder = GOLDENS / "families"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")))
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of OpenGVLab/InternVL")
    clone = parser.parse_args().upstream
    torch.set_num_threads(1)
    train = import_training(clone)
    label_goldens(train, certificate(clone))
    for replace in ("qwen2", "phi3", "llama"):
        getattr(train, f"replace_{replace}_attention_class")()
    for name in FAMILIES:
        family_golden(train, clone, name)


if __name__ == "__main__":
    main()
