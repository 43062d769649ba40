"""Write `tests/goldens/training/mpo`: upstream's runs of mixed preference optimisation. `make goldens`.

    python -m tests.goldens.make_mpo_goldens --upstream CLONE

CLONE is a checkout of https://github.com/OpenGVLab/InternVL. Needs torch, transformers 4.37.2, peft 0.10.0 and trl
0.9.6, the versions of upstream's training. `internlm2_batch1.json` has another maker, see the README of the goldens.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.goldens.make_training_goldens import array, certificate
from tests.goldens.training_upstream import import_training
from tests.training.families import GOLDENS, family_checkpoint
from tests.training.preference_runs import ARGUMENTS, DATA, RUNS

_LOSSES = {"sigmoid": "dpo", "bco_pair": "bco"}


def upstream_parts(mpo, family: str, folder: Path) -> tuple:
    """Tokenizer, policy and reference model of a checkpoint."""
    if family == "internlm2":
        from internvl.model.internlm2.tokenization_internlm2 import InternLM2Tokenizer

        tokenizer = InternLM2Tokenizer.from_pretrained(str(folder), add_eos_token=False)
    else:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=False, add_eos_token=False)
    tokenizer.model_max_length = DATA["max_seq_length"]
    fields = json.loads((folder / "config.json").read_text())
    weights = {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}
    models = []
    for _ in range(2):
        config = mpo.InternVLChatConfig(**{k: v for k, v in fields.items() if k not in ("model_type", "torch_dtype")})
        config.vision_config.drop_path_rate = 0.0
        config.llm_config._attn_implementation = config.llm_config.attn_implementation = "eager"
        model = mpo.InternVLChatModel(config, use_flash_attn=False)
        model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
        model.img_context_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        model.language_model.config.use_cache = False
        models.append(model.float())
    return tokenizer, *models


def pairs_dataset(mpo, template: str, tokenizer, model):
    """Upstream's data set of the goldens' pairs, and the names of the pairs in its order."""
    meta = {"annotation": str(GOLDENS / "mpo/pairs.jsonl"), "root": str(GOLDENS / "media")}
    dataset = mpo.LazySupervisedDataset(
        template, meta, tokenizer, None, "pairs", model.num_image_token, image_size=model.config.force_image_size,
        is_train=False, dynamic_image_size=True, use_thumbnail=DATA["use_thumbnail"],
        max_dynamic_patch=DATA["max_dynamic_patch"], random_seed=0,
    )  # fmt: skip
    for k in range(len(dataset)):
        assert (dataset[k]["chosen_labels"] != -100).any() and (dataset[k]["rejected_labels"] != -100).any()
    return mpo.ConcatDataset([dataset]), [json.loads(line)["id"] for line in dataset.raw_data]


def recording_trainer(base):
    """Upstream's trainer on samples in order, which records every step."""

    class Recording(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.steps = []
            clip = self.accelerator.clip_grad_norm_

            def recording_clip(parameters, max_norm):
                norm = clip(parameters, max_norm)
                self.steps[-1]["grad_norm_before_clip"] = float(norm)
                return norm

            self.accelerator.clip_grad_norm_ = recording_clip

        def _get_train_sampler(self):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def dpo_loss(self, *log_probs):
            losses, chosen, rejected = super().dpo_loss(*log_probs)
            self.steps[-1][f"losses/{_LOSSES[self.loss_type]}"] = losses.tolist()
            names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
            self.steps[-1] |= {f"logps/{name}": value.tolist() for name, value in zip(names, log_probs)}
            return losses, chosen, rejected

        def get_batch_loss_metrics(self, model, batch, train_eval="train"):
            self.steps.append({})
            loss, metrics = super().get_batch_loss_metrics(model, batch, train_eval)
            values = {name: float(value) for name, value in metrics.items() if not name.startswith("logits/")}
            self.steps[-1] |= {"loss": loss.item(), "losses/sft": values.pop("nll_loss"), **values}
            self.steps[-1]["bco/delta_running_mean"] = float(self.running.mean)
            self.steps[-1]["tiles"] = len(batch["pixel_values"])
            return loss, metrics

    return Recording


def run_golden(mpo, family: str, template: str, batch_size: int, folder: Path) -> dict:
    """Six steps of upstream's trainer."""
    tokenizer, policy, reference = upstream_parts(mpo, family, folder)
    dataset, order = pairs_dataset(mpo, template, tokenizer, policy)
    initial = {name: array(p).copy() for name, p in policy.named_parameters()}
    with tempfile.TemporaryDirectory() as output:
        arguments = mpo.DPOConfig(
            output, per_device_train_batch_size=batch_size, save_strategy="no", report_to=[], use_cpu=True,
            remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True, seed=0, **ARGUMENTS,
        )  # fmt: skip
        for name, weight in {"sigmoid_loss_weight": 0.8, "bco_pair_loss_weight": 0.2}.items():
            setattr(arguments, name, weight)
        trainer = recording_trainer(mpo.MultimodalDPOTrainer)(
            model=policy, ref_model=reference, args=arguments, train_dataset=dataset, eval_dataset=None,
            tokenizer=tokenizer, data_collator=mpo.dpo_concat_pad_data_collator,
        )  # fmt: skip
        trainer.train()
    changes = {name: float(np.linalg.norm(array(p) - initial[name])) for name, p in policy.named_parameters()}
    return {"order": order, "steps": trainer.steps, "change_norms": changes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of OpenGVLab/InternVL")
    clone = parser.parse_args().upstream
    torch.set_num_threads(1)
    import_training(clone)
    mpo = importlib.import_module("internvl.train.internvl_chat_mpo")
    made_by = certificate(clone, trl=version("trl"))
    for name, (family, template, batch_size) in RUNS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = GOLDENS / "checkpoint"
            if family != "internlm2":
                folder = family_checkpoint(Path(temporary) / "hf", family)
            content = {"made_by": made_by, **run_golden(mpo, family, template, batch_size, folder)}
        (GOLDENS / f"mpo/{name}.json").write_text(json.dumps(content, separators=(",", ":")))


if __name__ == "__main__":
    main()
