"""Preference optimisation on PaddleNLP's Trainer: mixed preference optimisation (MPO), DPO and its variants.

In: a recipe, a model, preference pairs. Out: see `SftTrainer`; metrics.jsonl has losses, rewards and log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import paddle

from paddle_internvl.training.batches import nothing_to_learn
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.preference_losses import (
    PairLogProbs,
    RunningMean,
    metric_names,
    preference_loss,
    updated_running_mean,
)
from paddle_internvl.training.reference import FrozenReference, StoredReference, answer_log_probs, answer_tokens
from paddle_internvl.training.sft import SftTrainer


class MpoTrainer(SftTrainer):
    """`SftTrainer` whose loss is the preference loss of pairs against a reference model. Arguments: see there.

    The reference model is the policy as it is before the first step, of a resumed run too.

    Attributes:
        eval_unit: see `SftTrainer`.
        running_mean: of the rewards of all micro-batches, and their number; the threshold of BCO.
    """

    eval_unit = "pairs"

    def __init__(self, model, dataset, recipe, arguments, held_out=None):
        super().__init__(model, dataset, recipe, arguments, held_out)
        self.running_mean = (0.0, 0)
        self._reference = self._new_reference()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `SftTrainer`."""
        return metric_names(self._recipe.preference)

    @property
    def eval_names(self) -> tuple[str, ...]:
        """See `SftTrainer`."""
        return self.metric_names

    def measure(self, model, batch: Mapping) -> tuple[dict[str, float], int]:
        """Loss and metrics of held-out pairs, with the running mean as it is, and their number."""
        loss, metrics, _ = self._loss(model, batch, self.running_mean, update=False)
        return {"loss": float(loss), **metrics}, len(batch["samples"])

    def _new_reference(self) -> FrozenReference | StoredReference | None:
        """The reference model; None: the losses have none."""
        recipe, args = self._recipe, self.args
        if recipe.preference.reference_free:
            return None
        if recipe.preference.reference_log_probs is None:
            return FrozenReference(self.model)
        if recipe.run.eval_meta_path is not None:
            raise ValueError("reference_log_probs has no held-out pairs; leave it out, or eval_meta_path")
        dtype = str(self.model.get_input_embeddings().weight.dtype)
        settings = {"model": str(self.model.checkpoint_folder), "dtype": dtype, **recipe.data}
        stored = StoredReference(Path(recipe.preference.reference_log_probs), settings)
        batch_size = args.per_device_train_batch_size
        idle = nothing_to_learn(self.model.config.tile_side)
        ranks = (args.dataset_rank, args.dataset_world_size)
        stored.complete(self.model, self.batches.reader, batch_size, idle, *ranks)
        return stored

    def compute_loss(self, model, inputs: Mapping, return_outputs: bool = False):
        """`preference_loss` of a batch; a loss that is not finite stops the run and names the pairs."""
        self._batch = inputs
        loss, metrics, self.running_mean = self._loss(model, inputs, self.running_mean)
        self.metrics.add(inputs, float(loss), metrics)
        return (loss, {}) if return_outputs else loss

    def _loss(
        self, model, batch: Mapping, running_mean: RunningMean, update: bool = True
    ) -> tuple[paddle.Tensor, dict[str, float], RunningMean]:
        """See `preference_loss`."""
        arguments = self._recipe.preference
        if not batch["samples"]:  # all pairs were skipped
            if "bco_pair" in arguments.weights:
                running_mean = updated_running_mean(running_mean, None)
            if self._reference is not None:
                self._reference.stand_by(batch)
            return sft_loss(model, batch), {}, running_mean
        tokens = paddle.to_tensor(answer_tokens(batch))
        reference = paddle.zeros_like(tokens) if self._reference is None else self._reference.log_probs(batch)
        policy = answer_log_probs(model, batch)
        (chosen, rejected), (chosen_tokens, rejected_tokens) = policy.chunk(2), tokens.chunk(2)
        pairs = PairLogProbs(chosen, rejected, *reference.chunk(2), chosen_tokens, rejected_tokens)
        nll = -chosen.sum() / chosen_tokens.sum()
        loss, metrics, running_mean = preference_loss(pairs, nll, running_mean, arguments, update)
        balancing_loss = self.model.language_model.balancing_loss  # of the policy's forward pass
        return loss if balancing_loss is None else loss + balancing_loss, metrics, running_mean

    def loss_state(self) -> dict:
        """The running mean of the rewards, the same on every rank."""
        return {"running_mean": list(self.running_mean)}

    def load_loss_state(self, state: Mapping) -> None:
        """Resume with a `loss_state`."""
        self.running_mean = tuple(state.get("running_mean", (0.0, 0)))

    def _settings(self) -> dict:
        preference = asdict(self._recipe.preference)
        del preference["reference_log_probs"]  # may change
        return {**super()._settings(), "method": "mpo", **preference}
