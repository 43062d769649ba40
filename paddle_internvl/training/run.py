"""A training run, from its arguments to the trained checkpoint.

In: a recipe. Out: the model trained in place, and OUTPUT/ with metrics.jsonl and the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import paddle
from paddlenlp.trainer import TrainingArguments, set_seed

from paddle_internvl import plotting
from paddle_internvl.jsonl import read_objects
from paddle_internvl.training.assembly import config_fields, initial_checkpoint
from paddle_internvl.training.dataset import SFTDataset
from paddle_internvl.training.lora import add_lora
from paddle_internvl.training.metrics import METRICS
from paddle_internvl.training.mpo import MpoTrainer
from paddle_internvl.training.preferences import PreferenceDataset
from paddle_internvl.training.recipe import Recipe
from paddle_internvl.training.reporting import plot_loss
from paddle_internvl.training.sft import SftTrainer
from paddle_internvl.training.sharding import shards_parameters, stage_of
from paddle_internvl.training.trainable import set_drop_path, set_load_balancing, set_trainable
from paddle_internvl.training.trainer_arguments import trainer_arguments

_CLASSES = {"sft": (SFTDataset, SftTrainer), "mpo": (PreferenceDataset, MpoTrainer)}


def train(config: Mapping, model=None, dataset=None, method: str = "sft"):
    """Train a model in place; with sharding stage2 or stage3 its parameters are this rank's shards afterwards.

    Args:
        config: arguments by upstream's names and those of PaddleNLP's TrainingArguments, see `Recipe`; and `method`.
        model: an `InternVLChatModel` loaded with trainable=True; None: that of the arguments is loaded, see
            `initial_checkpoint`.
        dataset: sample dicts, as of `SFTDataset`, packs, as of `PackedDataset`, or for 'mpo' pairs, as of
            `PreferenceDataset`; None: `meta_path` is read.
        method: 'sft', supervised fine-tuning, or 'mpo', preference optimisation; that of the config goes before it.
    Returns:
        The trained model.
    Raises:
        ValueError: an argument that is unknown or out of range.
        FloatingPointError: a loss or gradient that is not finite; names the step and the samples.
        MemoryError: out of memory; says which arguments to change.
        KeyboardInterrupt: Ctrl-C; a checkpoint is saved. SIGTERM ends in SystemExit.
    """
    config = dict(config)
    method = config.pop("method", method)
    recipe = Recipe.from_dict(config, method)
    dataset_class, trainer_class = _CLASSES[method]
    if recipe.run.plot is not None:
        plotting.plot_file(recipe.run.plot)
    arguments = trainer_arguments(recipe.trainer)
    if recipe.run.eval_benchmarks and stage_of(arguments) > 1:
        raise ValueError(
            "eval_benchmarks needs the whole model on one rank, which sharding stage2 and stage3 do not leave there; "
            "leave it out and evaluate the checkpoints: paddle-internvl eval run OUTPUT/checkpoint-<step>"
        )
    if model is None:
        model = _load(recipe, arguments)
    if dataset is None:
        if recipe.run.meta_path is None:
            raise ValueError("meta_path is needed: the meta JSON of the data sets")
        dataset = dataset_class(recipe.run.meta_path, model.checkpoint_folder, **recipe.data)
    set_seed(arguments.seed)
    paddle.seed(arguments.seed)  # not the rank's own: each rank shards the same new adapters
    prepare(model, recipe)
    if not hasattr(dataset, "__len__"):  # PackedDataset
        dataset = list(dataset)
    held_out = None
    if recipe.run.eval_meta_path is not None:
        held_out = dataset_class(recipe.run.eval_meta_path, model.checkpoint_folder, **recipe.data)
    trainer = trainer_class(model, dataset, recipe, arguments, held_out)
    trainer.run()
    trainer.save_trained(arguments.output_dir)
    if trainer.is_world_process_zero() and recipe.run.plot is not None:
        plot_loss(read_objects(Path(arguments.output_dir) / METRICS), Path(recipe.run.plot))
    return model


def _load(recipe: Recipe, arguments: TrainingArguments):
    from paddle_internvl.modeling import InternVLChatModel

    folder = initial_checkpoint(recipe.assembly, recipe.data, arguments.output_dir, arguments.seed)
    options = {name: getattr(recipe.model, name) for name in ("load_in_8bit", "load_in_4bit")}
    options["dtype"] = recipe.model.dtype or ("bfloat16" if recipe.trainer.get("bf16") else "float32")
    options["mapped"] = shards_parameters(arguments)  # no rank has room for the whole model
    fields = config_fields(recipe.assembly, recipe.data)
    return InternVLChatModel.from_pretrained(folder, trainable=True, device=arguments.device, **options, **fields)


def prepare(model, recipe: Recipe) -> None:
    """Freeze the parts of a model and add its LoRA adapters, by a recipe."""
    options = recipe.model
    set_drop_path(model, options.drop_path_rate)
    if options.router_aux_loss_coef is not None:
        set_load_balancing(model, options.router_aux_loss_coef)
    if options.use_llm_lora or options.use_backbone_lora:
        add_lora(model, options.use_llm_lora, options.use_backbone_lora, options.lora_alpha, options.lora_dropout)
    set_trainable(
        model, options.freeze_llm, options.freeze_backbone, options.freeze_mlp, options.unfreeze_vit_layers,
        options.unfreeze_lm_head,
    )  # fmt: skip
