"""Mixture of experts (MoE): a router chooses A of X gated MLPs for each token.

Four forms compute the same. `native` is the CPU kernel, without gradients. `grouped` sorts the tokens by expert: each
expert is one product of all its tokens. Decode on a CUDA card may be captured in a graph, so its shapes depend on no
value: few tokens are `gathered`, that is, the weights of their experts are copied side by side; more tokens are
`dense`, all experts compute all of them, which takes the time of reading the weights.
Follows transformers' `modeling_qwen3_moe.py`, `Qwen3MoeSparseMoeBlock`.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.configuration import DecoderConfig
from paddle_internvl.kernels.experts import experts
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.activations import swiglu
from paddle_internvl.ops.stacked_linear import StackedLinear

_DENSE_TOKENS = 512  # of which `dense` takes about as long as reading all experts does


class Experts(nn.Layer):
    """X gated MLPs, of which A compute each token; their weights are two stacked tensors.

    Args:
        here: number of experts here: X, or a tensor-parallel rank's share of them.
        width: D.
        features: I of each expert.
        std: standard deviation of a new model's weights.
        first: index of the first expert here; other experts add nothing to the sum. None: all experts are here.
    Attributes:
        gate_up_proj: weights [X, D, 2I], the gate's columns before the up projection's.
        down_proj: weights [X, I, D].
    """

    def __init__(self, here: int, width: int, features: int, std: float = 0.02, first: int | None = None):
        super().__init__()
        self.here, self.width, self.features, self.first = here, width, features, first
        self.gate_up_proj = StackedLinear(here, width, 2 * features, std)
        self.down_proj = StackedLinear(here, features, width, std)

    def forward(self, x: paddle.Tensor, chosen: paddle.Tensor, weights: paddle.Tensor) -> paddle.Tensor:
        """Weighted sum of the outputs of each token's experts.

        Args:
            x: [n, D].
            chosen: int64 [n, A], indices of each token's experts.
            weights: [n, A], their weights.
        Returns:
            [n, D].
        """
        n, active = chosen.shape
        choice = dispatch.choose("experts", x)
        if choice == "native":
            return self.native(x, chosen, weights)
        if choice == "grouped" or (n > _DENSE_TOKENS and paddle.in_dynamic_mode()):
            return self.grouped(x, chosen, weights)
        return (self.gathered if n * active <= self.here else self.dense)(x, chosen, weights)

    def native(self, x: paddle.Tensor, chosen: paddle.Tensor, weights: paddle.Tensor) -> paddle.Tensor:
        """`forward` by the C++ library, which reads the chosen experts' weights only."""
        local, elsewhere = self._local(chosen)
        if elsewhere is not None:
            local = paddle.where(elsewhere, paddle.full_like(local, -1), local)
        return experts(x, self.gate_up_proj.stacked, self.down_proj.stacked, local.astype("int32"), weights)

    def gathered(self, x: paddle.Tensor, chosen: paddle.Tensor, weights: paddle.Tensor) -> paddle.Tensor:
        """`forward` of few tokens, from a copy of the weights of each token's experts."""
        n, active = chosen.shape
        local, elsewhere = self._local(chosen)
        if elsewhere is not None:
            local = local.clip(0, self.here - 1)
            weights = paddle.where(elsewhere, paddle.zeros_like(weights), weights)
        rows = x.unsqueeze(1).expand([n, active, -1]).reshape([n * active, -1])
        gate, up = self.gate_up_proj.gathered(rows, local.flatten()).chunk(2, axis=-1)
        y = self.down_proj.gathered(swiglu(gate, up), local.flatten())
        return (y.reshape([n, active, -1]) * weights.unsqueeze(-1)).sum(axis=1)

    def dense(self, x: paddle.Tensor, chosen: paddle.Tensor, weights: paddle.Tensor) -> paddle.Tensor:
        """`forward` by all experts for all tokens, those that are not chosen with the weight zero."""
        local, _ = self._local(chosen)
        is_chosen = local.unsqueeze(-1) == paddle.arange(self.here)  # [n, A, X]
        weights = (is_chosen.astype(x.dtype) * weights.unsqueeze(-1)).sum(axis=1)  # [n, X]
        gate, up = self.gate_up_proj.everywhere(x).chunk(2, axis=-1)
        y = self.down_proj.everywhere(swiglu(gate, up))  # [X, n, D]
        return (y * weights.t().unsqueeze(-1)).sum(axis=0)

    def grouped(self, x: paddle.Tensor, chosen: paddle.Tensor, weights: paddle.Tensor) -> paddle.Tensor:
        """`forward` by one product an expert, of the tokens sorted by expert."""
        n, active = chosen.shape
        local, elsewhere = self._local(chosen)
        if elsewhere is not None:  # behind the rows of the experts here
            local = paddle.where(elsewhere, paddle.full_like(local, self.here), local)
        local = local.flatten()
        order = local.argsort(stable=True)  # [n * A]
        counts = paddle.bincount(local, minlength=self.here + 1).tolist()
        rows = x.index_select(order // active, axis=0).split(counts)
        parts = {expert: part for expert, part in enumerate(rows[:-1]) if counts[expert]}
        hidden = [swiglu(*each.chunk(2, axis=-1)) for each in self.gate_up_proj.products(parts)]
        y = self.down_proj.products(dict(zip(parts, hidden)))
        y = paddle.concat([*y, paddle.zeros_like(rows[-1])])  # [n * A, D]
        y = y.index_select(order.argsort(), axis=0).reshape([n, active, -1])
        return (y * weights.unsqueeze(-1)).sum(axis=1)

    def _local(self, chosen: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """Indices among the experts here, and which of them are elsewhere, bool [n, A]; None: no one can be."""
        if self.first is None:
            return chosen, None
        local = chosen - self.first
        return local, paddle.logical_or(local < 0, local >= self.here)


class SparseMLP(nn.Layer):
    """A router and its experts, in the place of a layer's MLP.

    Args:
        config: of the decoder.
    Attributes:
        gate: the router, D -> X logits.
        balanced: whether training adds the load-balancing loss, for which `forward` also returns the logits.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        sizes, normal = config.sizes.experts, nn.initializer.Normal(0.0, config.initializer_range)
        self.active, self.normalised = sizes.active, config.norm_topk_prob
        self.balanced = config.output_router_logits
        self.gate = nn.Linear(
            config.hidden_size, sizes.experts, weight_attr=paddle.ParamAttr(initializer=normal), bias_attr=False
        )
        self.experts = Experts(sizes.experts, config.hidden_size, sizes.features, config.initializer_range)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor | tuple[paddle.Tensor, paddle.Tensor]:
        """The layer's output [B, L, D]; a balanced layer in training returns the router's logits [B * L, X] too."""
        tokens = x.reshape([-1, x.shape[-1]])
        logits = self.gate(tokens)
        chosen, weights = route(logits, self.active, self.normalised)
        y = self.experts(tokens, chosen, weights.astype(x.dtype)).reshape(x.shape)
        return (y, logits) if self.balanced and self.training else y


def route(logits: paddle.Tensor, active: int, normalised: bool) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Choose the experts of each token.

    Args:
        logits: [n, X], of the router.
        active: A.
        normalised: whether the weights of a token's experts are divided by their sum.
    Returns:
        Indices int64 [n, A], the likeliest first, and their weights, float32 [n, A].
    """
    weights, chosen = F.softmax(logits.astype("float32"), axis=-1).topk(active, axis=-1)
    return chosen, weights / weights.sum(axis=-1, keepdim=True) if normalised else weights


def load_balancing_loss(
    router_logits: Sequence[paddle.Tensor], active: int, mask: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Load-balancing loss of a mixture of experts, https://arxiv.org/abs/2101.03961, equations 4 to 6.

    The share of tokens of each expert times its mean probability, summed and times X: A where all experts get equally
    many tokens. Tokens of all layers count together.

    Args:
        router_logits: [B * L, X] of each sparse layer.
        active: A.
        mask: [B, L], 1 for tokens and 0 for padding, which does not count; None: no padding.
    Returns:
        float32 scalar.
    Source: transformers `modeling_qwen3_moe.py`, `load_balancing_loss_func`.
    """
    probabilities = F.softmax(paddle.concat(list(router_logits)).astype("float32"), axis=-1)
    (n, experts), layers = probabilities.shape, len(router_logits)
    counted = paddle.ones([n]) if mask is None else mask.astype("float32").flatten().tile([layers])
    chosen = probabilities.detach().topk(active, axis=-1)[1]
    tokens = paddle.bincount(chosen.flatten(), counted.repeat_interleave(active), minlength=experts)
    shares, means = tokens / counted.sum(), (probabilities * counted.unsqueeze(-1)).sum(axis=0) / counted.sum()
    return (shares * means).sum() * experts
