"""Supervised fine-tuning (SFT) and LoRA on PaddleNLP's Trainer.

In: a recipe, a model, a data set. Out: the model trained in place; OUTPUT/ holds metrics.jsonl and checkpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import paddle
from paddlenlp.trainer import Trainer, TrainingArguments

from paddle_internvl.runtime import is_out_of_memory
from paddle_internvl.training.arguments import DataArguments
from paddle_internvl.training.batches import PackBatches, SampleBatches, nothing_to_learn, train_batches
from paddle_internvl.training.benchmark_evaluation import BenchmarkEvaluation
from paddle_internvl.training.clipping import InPlaceClip
from paddle_internvl.training.collate import collate
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.held_out import HeldOut
from paddle_internvl.training.lora import lora_layers
from paddle_internvl.training.lora_folders import save_adapter
from paddle_internvl.training.losses import count_learnt, sft_loss
from paddle_internvl.training.memory_advice import StepSizes, memory_error
from paddle_internvl.training.metrics import METRICS, MetricsWriter
from paddle_internvl.training.reader import SKIPPED, SampleReader
from paddle_internvl.training.recipe import Recipe
from paddle_internvl.training.reporting import Reporting, reporters
from paddle_internvl.training.run_checkpoints import RunCheckpoints, step_of
from paddle_internvl.training.schedule import learning_rate_factor, warmup_steps
from paddle_internvl.training.sharding import WholeParameters, shard_parameters, stage_of
from paddle_internvl.training.stop_signals import StopSignals

# Of PaddleNLP's arguments: a resumed run must have them in common with the run that saved the checkpoint.
_COMMON = (
    "seed", "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "max_steps", "max_grad_norm",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
_MAY_CHANGE = ("eval_meta_path", "eval_benchmarks", "on_bad_sample", "plot", "dtype")  # of our own


class SftTrainer(Trainer):
    """PaddleNLP's Trainer with our batches, loss, schedule, weight decay and metrics.

    Args:
        model: with its trainable parameters chosen.
        dataset: sample dicts.
        recipe: of the run.
        arguments: PaddleNLP's.
        held_out: sample dicts whose loss is measured; None: none.
    Attributes:
        metric_names: names of the numbers that metrics.jsonl has beside the loss.
        eval_names: of these, what is measured on held-out samples too.
        eval_unit: what the weight of a held-out batch counts.
    """

    metric_names: tuple[str, ...] = ()
    eval_names: tuple[str, ...] = ()
    eval_unit = "tokens"

    def __init__(self, model, dataset: Sequence[dict], recipe: Recipe, arguments: TrainingArguments, held_out=None):
        self.shards = shard_parameters(model, arguments)
        super().__init__(model=model, args=arguments, train_dataset=dataset, data_collator=collate)
        self._recipe, self._report = recipe, Path(arguments.output_dir) / SKIPPED
        self.resumed_from: str | None = None
        self._batch: Mapping = {}
        self.batches = self._new_batches()
        self._held_out = None if held_out is None else self._new_held_out(held_out)
        self._benchmarks = self._new_benchmarks()
        self.metrics = MetricsWriter(Path(arguments.output_dir) / METRICS, self)
        self.checkpoints = RunCheckpoints(self, self._settings())
        self.add_callback(self.metrics)
        self.add_callback(self.checkpoints)
        if self.shards is not None:
            self.add_callback(WholeParameters(self.shards))

    def run(self) -> None:
        """Train, from the newest checkpoint on if there is one.

        Raises:
            KeyboardInterrupt: Ctrl-C, after a checkpoint is saved; SIGTERM raises SystemExit.
        """
        self.resumed_from = self.checkpoints.find(self.args.resume_from_checkpoint)
        if self.resumed_from is not None and step_of(self.resumed_from) >= self.args.max_steps:
            self.checkpoints.load_parameters(self.resumed_from)
            return
        if self.resumed_from is None and self.is_world_process_zero():
            self._report.unlink(missing_ok=True)
        reporting = Reporting(self.metrics, reporters(self._recipe.trainer.get("report_to")))
        self.add_callback(reporting)
        with StopSignals() as signals, closing(reporting):
            self.add_callback(signals)
            try:
                self.train(resume_from_checkpoint=self.resumed_from)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise memory_error(self._sizes(), self.state.global_step + 1, error) from error
        if signals.stopped:
            signals.leave(self.args.output_dir, self.state.global_step)

    def save_trained(self, folder: str) -> None:
        """Write what is trained: the adapters of a LoRA model, else a whole checkpoint. Every rank calls it at once."""
        adapters = bool(lora_layers(self.model))
        with nullcontext() if self.shards is None else self.shards.whole_on_first_rank(trained_only=adapters):
            if self.is_world_process_zero():
                if adapters:
                    save_adapter(self.model, folder)
                else:
                    self.model.save_pretrained(folder)

    def _sizes(self) -> StepSizes:
        """Sizes of the step that runs."""
        args, parameters = self.args, [p for p in self.model.parameters() if not p.stop_gradient]
        shapes = [getattr(p, "whole_shape", p.shape) for p in parameters]  # of a shard: the parameter's
        rows, tokens = self._batch["input_ids"].shape if self._batch else (args.per_device_train_batch_size, 0)
        return StepSizes(
            rows=rows, tokens=tokens, tiles=len(self._batch["pixel_values"]) if self._batch else 0,
            accumulation=args.gradient_accumulation_steps, trained=sum(map(math.prod, shapes)),
            low_precision=any(p.dtype == paddle.bfloat16 for p in parameters), recompute=args.recompute,
            ranks=args.dataset_world_size, sharding=stage_of(args), adapters=bool(lora_layers(self.model)),
            packed=self._recipe.packing.use_packed_ds,
            max_dynamic_patch=self._recipe.data.get("max_dynamic_patch", DataArguments.max_dynamic_patch),
        )  # fmt: skip

    def _settings(self) -> dict:
        """Arguments that a resumed run must have in common with the run that saved the checkpoint."""
        args, recipe = self.args, self._recipe
        trainer = {name: getattr(args, name) for name in _COMMON}
        trainer["lr_scheduler_type"] = self._schedule
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.dataset_world_size
        settings = {**vars(recipe.model), **vars(recipe.run), **asdict(recipe.packing), **recipe.data}
        settings = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
        samples = len(self.train_dataset)
        return json.loads(json.dumps({**settings, **trainer, "samples of a step": batch, "samples": samples}))

    @property
    def _schedule(self) -> str:
        """Name of the learning rate's schedule."""
        return str(getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type))

    def get_train_dataloader(self) -> SampleBatches | PackBatches:
        """Micro-batches of this rank.

        The loader has no length: the Trainer runs `max_steps` optimizer steps over one stream of micro-batches, so that
        no gradient is left over at the end of an epoch.
        """
        return self.batches

    def _new_batches(self) -> SampleBatches | PackBatches:
        """Micro-batches of this rank, in an order that is a function of seed, rank and number of ranks."""
        args = self.args
        batches = train_batches(self.train_dataset, self._recipe, args, self.model.config.tile_side, self._report)
        if args.max_steps <= 0:
            steps = max(1, batches.batches_per_epoch // args.gradient_accumulation_steps)
            args.max_steps = math.ceil(args.num_train_epochs * steps)
        return batches

    def _new_held_out(self, dataset: Sequence[dict]) -> HeldOut:
        args = self.args
        reader = SampleReader(dataset, args.dataloader_num_workers, self._recipe.run.on_bad_sample, self._report)
        measured = (self.measure, ("loss", *self.eval_names), self.eval_unit)
        idle = nothing_to_learn(self.model.config.tile_side)
        ranks = (args.dataset_rank, args.dataset_world_size)
        return HeldOut(reader, args.per_device_eval_batch_size, *measured, idle, *ranks)

    def _new_benchmarks(self) -> BenchmarkEvaluation | None:
        names = self._recipe.run.eval_benchmarks
        return BenchmarkEvaluation(names, Path(self.args.output_dir) / "eval") if names else None

    def measure(self, model, batch: Mapping) -> tuple[dict[str, float], int]:
        """Loss of a held-out batch, and its learnt tokens."""
        return {"loss": float(sft_loss(model, batch))}, count_learnt(batch)

    def evaluate_held_out(self) -> dict[str, float]:
        """Numbers of the held-out samples and benchmarks after every `eval_steps` steps and the last; else none."""
        step, every = self.state.global_step, self.args.eval_steps
        if step < self.state.max_steps and not (every and step % every == 0):
            return {}
        numbers = {} if self._held_out is None else self._held_out.evaluate(self.model)
        if self._benchmarks is not None and self.is_world_process_zero():
            numbers |= self._benchmarks.evaluate(self.model, step)
        return numbers

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.batches.epoch

    @property
    def sharded(self) -> bool:
        """Whether each rank has the optimizer state of other parameters (sharding)."""
        return bool(self.args.sharding)

    def owned_parameters(self) -> list[paddle.Tensor]:
        """The trainable parameters whose optimizer state this rank has: all of them without sharding."""
        return self.adamw._parameter_list

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """AdamW over the trainable parameters, and the schedule of upstream's Trainer."""
        args = self.args
        warmup = warmup_steps(num_training_steps, args.warmup_ratio, args.warmup_steps)
        kind = self._schedule
        self.lr_scheduler = paddle.optimizer.lr.LambdaDecay(
            args.learning_rate, lambda step: learning_rate_factor(kind, step, warmup, num_training_steps)
        )
        parameters = {name: p for name, p in self.model.named_parameters() if not p.stop_gradient}
        decayed = {parameters[name].name for name in decayed_parameters(self.model, self._recipe.run.decay_rule)}
        group = None if self.shards is None else self.shards.group
        self.optimizer = self.adamw = paddle.optimizer.AdamW(
            learning_rate=self.lr_scheduler, parameters=list(parameters.values()), weight_decay=args.weight_decay,
            beta1=args.adam_beta1, beta2=args.adam_beta2, epsilon=args.adam_epsilon,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=InPlaceClip(args.max_grad_norm, group) if args.max_grad_norm > 0 else None,
            multi_precision=True,
        )  # fmt: skip

    def _wrap_model(self, model, training=True):
        """The model: wrapped by PaddleNLP, unless its parameters are sharded."""
        return super()._wrap_model(model, training) if self.shards is None else model

    def compute_loss(self, model, inputs: Mapping, return_outputs: bool = False):
        """`sft_loss` of a batch; a loss that is not finite stops the run and names the samples."""
        self._batch = inputs
        loss = sft_loss(model, inputs, self._recipe.packing.loss_reduction_all_gather)
        self.metrics.add(inputs, float(loss))
        return (loss, {}) if return_outputs else loss

    def loss_state(self) -> dict:
        """State of the loss, for JSON: none."""
        return {}

    def load_loss_state(self, state: Mapping) -> None:
        """Resume with a `loss_state`."""

    def _save_checkpoint(self, model, metrics=None) -> None:
        self.checkpoints.save()

    def _load_from_checkpoint(self, resume_from_checkpoint=None) -> None:
        if resume_from_checkpoint is not None:
            self.checkpoints.load_parameters(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint) -> None:
        if checkpoint is not None:
            self.checkpoints.load_optimizer(checkpoint)
