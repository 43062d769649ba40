"""Training losses of supervised fine-tuning (SFT), of padded or packed batches.

In: a network and a batch of arrays. Out: a scalar to differentiate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
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
    pixel_values, image_flags = tiles_to_run(batch["pixel_values"], batch["image_flags"])
    output = model(pixel_values=pixel_values, image_flags=image_flags, return_logits=False, **inputs)
    if not average_weight_over_ranks or "loss_weight" not in inputs:
        return output.loss
    share = _share_of_weight(inputs["labels"], inputs["loss_weight"])
    if output.balancing_loss is None:
        return output.loss * share
    return (output.loss - output.balancing_loss) * share + output.balancing_loss


def count_learnt(batch: Mapping) -> int:
    """Number of learnt tokens of a batch: labels that are predicted from a token of their row."""
    return int((np.asarray(batch["labels"])[:, 1:] != IGNORED).sum())


def segment_ids(cu_seqlens, length: int) -> paddle.Tensor:
    """Segment of each position of a pack, int32 [1, L], from the bounds of its samples, int32 [samples + 1]."""
    ends = np.asarray(cu_seqlens).reshape(-1)[1:]
    return paddle.to_tensor(np.searchsorted(ends, np.arange(length), side="right").astype(np.int32)[None])


def tiles_to_run(pixel_values, image_flags) -> tuple[paddle.Tensor, paddle.Tensor]:
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
