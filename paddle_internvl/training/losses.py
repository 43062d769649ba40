"""Training losses: supervised fine-tuning of padded or packed batches, and mixed preference optimisation (MPO).

In: a network and a batch of arrays, or log-probabilities of answers. Out: a scalar to differentiate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import distributed

from paddle_internvl.prompt.encode import IGNORED

INPUTS = ("input_ids", "attention_mask", "position_ids", "labels", "loss_weight")  # the model's names of batch keys


def sft_loss(model, batch: Mapping, average_weight_over_ranks: bool = False) -> paddle.Tensor:
    """Next-token loss of a batch for supervised fine-tuning (SFT).

    A padded batch: the mean over all learnt tokens. A pack: the mean weighted by `loss_weight`. Tiles without
    `<IMG_CONTEXT>` tokens are left out, but one tile of a batch without pictures runs, so that every rank has gradients
    of the vision tower.

    Args:
        model: an `InternVLNetwork`, or a wrapper of one.
        batch: arrays or tensors by name:
            pixel_values: float32 [T, 3, S, S].
            image_flags: int64 [T], 0 for tiles without `<IMG_CONTEXT>` tokens.
            input_ids: int64 [B, L].
            labels: int64 [B, L], -100 where nothing is learnt, not shifted.
            position_ids: int64 [B, L].
            attention_mask: int64 [B, L] of a padded batch, 1 within each sample's length.
            cu_seqlens: int32 [samples + 1] of a pack, B = 1, in place of attention_mask: bounds of its samples.
            loss_weight: float32 [1, L] of a pack, at the label's place.
        average_weight_over_ranks: divide a pack's loss by the mean of all ranks' sums of weights, not by the rank's
            sum (upstream's `loss_reduction_all_gather`).
    Returns:
        float32 scalar; 0 if there is nothing to learn (`count_learnt` is 0 then).
    Raises:
        ValueError: visual tokens and `<IMG_CONTEXT>` tokens differ in number.
    Source: upstream `modeling_internvl_chat.py`, `InternVLChatModel.forward`.
    """
    inputs = {name: paddle.to_tensor(batch[name]) for name in INPUTS if batch.get(name) is not None}
    if batch.get("cu_seqlens") is not None:
        inputs["segment_ids"] = segment_ids(batch["cu_seqlens"], inputs["input_ids"].shape[1])
    pixel_values, image_flags = _tiles_to_run(batch["pixel_values"], batch["image_flags"])
    loss = model(pixel_values=pixel_values, image_flags=image_flags, return_logits=False, **inputs).loss
    if average_weight_over_ranks and "loss_weight" in inputs:
        loss = loss * _share_of_weight(inputs["labels"], inputs["loss_weight"])
    return loss


def count_learnt(batch: Mapping) -> int:
    """Number of learnt tokens of a batch: labels that are predicted from a token of their row."""
    return int((np.asarray(batch["labels"])[:, 1:] != IGNORED).sum())


def segment_ids(cu_seqlens, length: int) -> paddle.Tensor:
    """Segment of each position of a pack, int32 [1, L], from the bounds of its samples, int32 [samples + 1]."""
    ends = np.asarray(cu_seqlens).reshape(-1)[1:]
    return paddle.to_tensor(np.searchsorted(ends, np.arange(length), side="right").astype(np.int32)[None])


def _tiles_to_run(pixel_values, image_flags) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Tiles with visual tokens and their flags; the first tile with flag 0 if there are none."""
    flags = np.asarray(image_flags).reshape(-1)
    used = np.flatnonzero(flags == 1) if (flags == 1).any() else np.zeros(1, np.int64)
    pixel_values = paddle.to_tensor(pixel_values)
    if len(used) < len(flags):
        pixel_values = pixel_values.index_select(paddle.to_tensor(used), axis=0)
    return pixel_values, paddle.to_tensor(flags[used].astype(np.int64))


def _share_of_weight(labels: paddle.Tensor, loss_weight: paddle.Tensor) -> paddle.Tensor:
    """The rank's sum of weights over the mean sum of all ranks, float32 scalar; 0 if no rank has weights."""
    total = paddle.where(labels[:, 1:] == IGNORED, paddle.zeros([]), loss_weight[:, 1:]).sum()
    mean = total.clone()
    if distributed.is_initialized():
        distributed.all_reduce(mean)
        mean = mean / distributed.get_world_size()
    return total / mean.clip(min=1e-20)


def mpo_loss(
    policy_chosen: paddle.Tensor,
    policy_rejected: paddle.Tensor,
    reference_chosen: paddle.Tensor,
    reference_rejected: paddle.Tensor,
    nll: paddle.Tensor,
    running_mean: tuple[float, int] = (0.0, 0),
    beta: float = 0.1,
    weights: tuple[float, float, float] = (0.8, 0.2, 1.0),
) -> tuple[paddle.Tensor, dict[str, float], tuple[float, int]]:
    """Mixed preference optimisation (MPO): preference (DPO), quality (BCO) and generation loss.

    Args:
        policy_chosen: float32 [B], log-probabilities of the chosen answers, summed over their tokens.
        policy_rejected: of the rejected answers.
        reference_chosen: the same of the frozen reference model.
        reference_rejected: of the rejected answers.
        nll: float32 scalar, mean negative log-probability of the chosen answers' tokens.
        running_mean: mean reward of the batches before, and their number.
        beta: strength of the pull to the reference model.
        weights: of preference, quality and generation loss.
    Returns:
        The loss, float32 scalar; metrics by name (losses unweighted, rewards weighted as the losses); the running mean
        with this batch, which the next call takes. The reward threshold `delta` of the quality loss is that mean.
    Source: DPO, https://arxiv.org/abs/2305.18290; BCO, https://arxiv.org/abs/2404.04656; MPO,
        https://arxiv.org/abs/2411.10442; upstream `trainer_dpo.py`; TRL 0.9.6 `DPOTrainer`, `RunningMoments`.
    """
    chosen, rejected = beta * (policy_chosen - reference_chosen), beta * (policy_rejected - reference_rejected)
    preference = -F.log_sigmoid(chosen - rejected).mean()
    running_mean = _updated(running_mean, float(paddle.concat([chosen, rejected]).detach().mean()))
    delta = running_mean[0]
    quality = -(F.log_sigmoid(chosen - delta) + F.log_sigmoid(delta - rejected)).mean()
    loss = weights[0] * preference + weights[1] * quality + weights[2] * nll
    scale = weights[0] + weights[1]  # both losses have the same rewards
    rewards = scale * chosen.detach(), scale * rejected.detach()
    metrics = {
        "loss/preference": preference,
        "loss/quality": quality,
        "loss/generation": nll,
        "rewards/chosen": rewards[0].mean(),
        "rewards/rejected": rewards[1].mean(),
        "rewards/accuracies": (rewards[0] > rewards[1]).astype("float32").mean(),
        "rewards/margins": (rewards[0] - rewards[1]).mean(),
        "logps/chosen": policy_chosen.mean(),
        "logps/rejected": policy_rejected.mean(),
        "delta": delta,
    }
    return loss, {name: float(value) for name, value in metrics.items()}, running_mean


def _updated(running_mean: tuple[float, int], value: float) -> tuple[float, int]:
    """The running mean with one more value per rank, each of the same weight."""
    mean, count = running_mean
    ranks = distributed.get_world_size() if distributed.is_initialized() else 1
    if ranks > 1:
        total = paddle.to_tensor([value], dtype="float32")
        distributed.all_reduce(total)
        value = float(total) / ranks
    return mean + (value - mean) * ranks / (count + ranks), count + ranks
