"""Sharded layers of a tensor-parallel decoder: linear layers, embedding and head of one rank's size.

Heads, MLP features and experts of a rank are computed without the others; the outputs of `o_proj`, `down_proj` and the
experts are summed over the ranks. Every rank holds the whole vision tower and computes its share of the tiles. For
inference only.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.models.experts import Experts
from paddle_internvl.ops.linear import linear
from paddle_internvl.parallel.process_group import ProcessGroup
from paddle_internvl.parallel.shards import SUMMED, ShardPlan


class ShardedEmbedding(nn.Layer):
    """Token embedding sharded by vocabulary; every rank returns the whole embeddings."""

    def __init__(self, plan: ShardPlan, group: ProcessGroup):
        super().__init__()
        self.group, self.first, self.size = group, plan.rank * plan.vocabulary_share, plan.vocabulary_share
        self.weight = self.create_parameter([self.size, plan.width])

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:  # [B, L] -> [B, L, D]
        rows = ids - self.first
        held = paddle.logical_and(rows >= 0, rows < self.size)
        x = F.embedding(rows.clip(0, self.size - 1), self.weight)
        return self.group.sum(x * held.unsqueeze(-1).astype(x.dtype))


class ShardedHead(nn.Layer):
    """Output head sharded by vocabulary; every rank returns all logits."""

    def __init__(self, plan: ShardPlan, group: ProcessGroup):
        super().__init__()
        self.group, self.vocabulary = group, plan.vocabulary
        self.weight = self.create_parameter([plan.width, plan.vocabulary_share])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [.., D] -> [.., V]
        return self.group.gather(linear(x, self.weight), axis=-1)[..., : self.vocabulary]


def shard_layers(network: nn.Layer, plan: ShardPlan, group: ProcessGroup) -> None:
    """Replace the layers of a network's decoder by sharded ones. They have no memory yet: call it under LazyGuard."""
    decoder = network.language_model
    for layer in decoder.model.layers:
        for name, whole in list(layer.named_sublayers()):
            shard = plan.shard_of(f"layers.0.{name}.weight") if isinstance(whole, nn.Linear) else None
            if shard is not None:
                shape = list(whole.weight.shape)
                shape[shard.axis] = shard.length
                parent, _, child = name.rpartition(".")
                sharded = nn.Linear(*shape, bias_attr=None if whole.bias is not None else False)
                setattr(getattr(layer, parent), child, sharded)
            elif isinstance(whole, Experts):
                layer.mlp.experts = Experts(
                    whole.here // plan.size, whole.width, whole.features, first=plan.local_experts[0]
                )
    decoder.model.embed_tokens = ShardedEmbedding(plan, group)
    decoder.lm_head = ShardedHead(plan, group)
    decoder.local_kv_heads = plan.local_kv_heads


def sum_partial_outputs(network: nn.Layer, group: ProcessGroup) -> None:
    """Sum the outputs of `o_proj`, `down_proj` and the experts over the ranks, by forward hooks."""
    for name, layer in network.language_model.named_sublayers():
        if name.endswith(SUMMED):
            layer.register_forward_post_hook(lambda _layer, _inputs, output: group.sum(output))


def extract_feature(network: nn.Layer, pixel_values: paddle.Tensor, group: ProcessGroup) -> paddle.Tensor:
    """Visual tokens of tiles, [T, 3, S, S] -> [T, N, D]: every rank computes its share of the tiles and gathers all."""
    tiles = pixel_values.shape[0]
    share = -(-tiles // group.size)
    held = pixel_values[group.rank * share : (group.rank + 1) * share]
    features = [network.extract_feature(held)] if held.shape[0] else []
    if held.shape[0] < share:
        shape = [share - held.shape[0], network.num_image_token, network.config.llm_config.hidden_size]
        features.append(paddle.zeros(shape, network.mlp1[1].bias.dtype))
    return group.gather(paddle.concat(features), axis=0)[:tiles]
