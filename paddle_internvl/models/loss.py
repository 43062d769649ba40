"""Losses over a vocabulary: log-probabilities of given tokens, and the next-token cross entropy.

In: hidden states, the output head, labels. Out: scalars or one number a token. Logits are made for a few positions at a
time, and only for positions with a label: a batch of 4,096 tokens over a vocabulary of 151,000 has 2.5 GB of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.distributed.fleet.utils import recompute
from paddlenlp.transformers.model_outputs import ModelOutput

from paddle_internvl.prompt.encode import IGNORED

_CHUNK_BYTES = 64 << 20  # of float32 logits at a time


@dataclass
class CausalLMOutput(ModelOutput):
    """Output of a causal language model.

    Attributes:
        loss: float32 scalar, or None without labels.
        logits: float32 [B, L, V], or None.
        learnt_tokens: number of labels in the loss, or None without labels.
        log_probs: float32 [B], see `row_log_probs`, in place of the loss; or None.
        balancing_loss: part of the loss: the weighted load-balancing loss of a mixture of experts, or None.
    """

    loss: paddle.Tensor | None = None
    logits: paddle.Tensor | None = None
    learnt_tokens: int | None = None
    log_probs: paddle.Tensor | None = None
    balancing_loss: paddle.Tensor | None = None

    @classmethod
    def of(cls, hidden, decoder, labels=None, loss_weight=None, *, return_logits=True, return_dict=True):
        """The output for hidden states [B, L, D] of a decoder; with return_dict=False a tuple of loss and logits."""
        loss, count = (None, None) if labels is None else next_token_loss(hidden, decoder.lm_head, labels, loss_weight)
        balancing_loss = decoder.balancing_loss if count else None
        if balancing_loss is not None:
            loss = loss + balancing_loss
        logits = decoder.compute_logits(hidden) if return_logits else None
        if not return_dict:
            return tuple(value for value in (loss, logits) if value is not None)
        return cls(loss, logits, count, balancing_loss=balancing_loss)


def next_token_loss(
    hidden: paddle.Tensor, head: nn.Layer, labels: paddle.Tensor, loss_weight: paddle.Tensor | None = None
) -> tuple[paddle.Tensor, int]:
    """Cross entropy of the next token.

    Args:
        hidden: [B, L, D], normalised hidden states.
        head: layer from [n, D] to logits [n, V].
        labels: int64 [B, L]; label i is predicted from position i - 1; -100: not learnt.
        loss_weight: float32 [B, L], weight of each label, at the label's own place; 0: not learnt; None: all 1.
    Returns:
        The weighted mean over the learnt labels, float32; 0 if there are none. And their number.
    Source: upstream `modeling_internvl_chat.py`, `forward`.
    """
    targets = labels[:, 1:].flatten()
    learnt = targets != IGNORED
    if loss_weight is not None:
        learnt = paddle.logical_and(learnt, loss_weight[:, 1:].flatten() != 0)
    learnt = learnt.nonzero().flatten()
    count = learnt.shape[0]
    if count == 0:
        unused = label_log_probs(hidden[:1, 0], head, paddle.zeros([1], "int64"))
        return (hidden.astype("float32").sum() + unused.sum()) * 0.0, 0  # zero gradients, which other ranks wait for
    rows = hidden[:, :-1].flatten(0, 1).index_select(learnt, axis=0)
    log_probs = label_log_probs(rows, head, targets.index_select(learnt, axis=0))
    if loss_weight is None:
        return -log_probs.mean(), count
    weights = loss_weight[:, 1:].flatten().index_select(learnt, axis=0).astype("float32")
    return -(log_probs * weights).sum() / weights.sum(), count


def row_log_probs(hidden: paddle.Tensor, head: nn.Layer, labels: paddle.Tensor) -> paddle.Tensor:
    """Log-probability of the learnt tokens of each row, summed: of an answer to its prompt.

    Args:
        hidden: [B, L, D], normalised hidden states.
        head: layer from [n, D] to logits [n, V].
        labels: int64 [B, L]; see `next_token_loss`. Every row has learnt labels.
    Returns:
        float32 [B].
    """
    targets = labels[:, 1:]
    learnt = targets != IGNORED
    places = learnt.flatten().nonzero().flatten()
    rows = hidden[:, :-1].flatten(0, 1).index_select(places, axis=0)
    log_probs = label_log_probs(rows, head, targets.flatten().index_select(places, axis=0))
    return paddle.stack([row.sum() for row in log_probs.split(learnt.sum(axis=1).tolist())])


def label_log_probs(hidden: paddle.Tensor, head: nn.Layer, labels: paddle.Tensor) -> paddle.Tensor:
    """Log-probability of a given token at each position.

    Args:
        hidden: [n, D].
        head: layer from [n, D] to logits [n, V].
        labels: int64 [n].
    Returns:
        float32 [n].
    """

    def part(rows: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        return -F.cross_entropy(head(rows).astype("float32"), targets, reduction="none").flatten()

    if not paddle.in_dynamic_mode():  # in a static graph n is not known, and there is no loop over chunks
        return part(hidden, labels)
    chunk = max(1, _CHUNK_BYTES // (4 * _vocabulary(head)))
    if paddle.is_grad_enabled() and type(head) is nn.Linear and head.bias is None:
        return _LabelLogProbs.apply(hidden, head.weight, labels, chunk)
    parts = []
    for start in range(0, hidden.shape[0], chunk):
        rows, targets = hidden[start : start + chunk], labels[start : start + chunk]
        parts.append(recompute(part, rows, targets) if paddle.is_grad_enabled() else part(rows, targets))
    return paddle.concat(parts)


def _vocabulary(head: nn.Layer) -> int:
    """V of an output head: a linear layer's, or that of one in the place of it (LoRA's, a sharded one)."""
    return getattr(head, "vocabulary", None) or head.weight.shape[1]


class _LabelLogProbs(PyLayer):
    """`label_log_probs` for a plain linear head: logits are made in the forward and again in the backward pass, one
    chunk of positions at a time, in one buffer."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunk: int):
        normalisers, chosen = [], []
        for start in range(0, hidden.shape[0], chunk):
            logits = paddle.matmul(hidden[start : start + chunk], weight).astype("float32")
            chosen.append(logits.take_along_axis(labels[start : start + chunk].unsqueeze(-1), axis=-1).squeeze(-1))
            highest = logits.max(axis=-1, keepdim=True)
            total = logits.subtract_(highest).exp_().sum(axis=-1)
            normalisers.append(total.log() + highest.squeeze(-1))
        normaliser = paddle.concat(normalisers)  # [n]
        ctx.save_for_backward(hidden, weight, labels, normaliser)
        ctx.chunk = chunk
        return paddle.concat(chosen) - normaliser

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, labels, normaliser = ctx.saved_tensor()
        grad_hidden = None if hidden.stop_gradient else paddle.empty_like(hidden)
        grad_weight = None if weight.stop_gradient else paddle.zeros(weight.shape, "float32")
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            rows, factor = hidden[part], grad[part].unsqueeze(-1)  # [c, D], [c, 1]
            # d log p[label] / d logits = onehot(label) - softmax
            slope = paddle.matmul(rows, weight).astype("float32")  # [c, V]
            slope.subtract_(normaliser[part].unsqueeze(-1)).exp_().multiply_(-factor)
            slope.put_along_axis_(labels[part].unsqueeze(-1), factor, axis=-1, reduce="add")
            slope = slope.astype(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = paddle.matmul(slope, weight, transpose_y=True)
            if grad_weight is not None and hidden.dtype == paddle.float32:
                grad_weight.addmm_(rows.t(), slope)
            elif grad_weight is not None:  # products in low precision, their sum over chunks in float32
                grad_weight.add_(paddle.matmul(rows, slope, transpose_x=True).astype("float32"))
        return grad_hidden, None if grad_weight is None else grad_weight.astype(weight.dtype), None
