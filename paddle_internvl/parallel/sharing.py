"""A decoder whose layers are shared out between ranks: the smaller layers, and what joins their results.

In: a network without memory, a `ShardPlan`, a `Team`. Out: the same network of this rank's size, in which inputs and
results of attention, MLP, embedding and head are as they were. What a rank holds of heads and features it works on
alone; the outputs of `o_proj` and `down_proj` are summed over the ranks. The vision tower is whole on each, and its
tiles are shared out. Only for inference.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from paddle_internvl.models.decoder import DecoderForCausalLM
from paddle_internvl.ops.linear import Linear, linear
from paddle_internvl.parallel.shards import SUMMED, ShardPlan
from paddle_internvl.parallel.team import Team


class SharedEmbedding(nn.Layer):
    """Token embeddings of which a rank holds a run of the vocabulary."""

    def __init__(self, split: ShardPlan, team: Team):
        super().__init__()
        self.team, self.first, self.share = team, split.rank * split.vocabulary_share, split.vocabulary_share
        self.weight = self.create_parameter([self.share, split.width])

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:  # [B, L] -> [B, L, D]
        own = ids - self.first
        here = paddle.logical_and(own >= 0, own < self.share)
        x = F.embedding(own.clip(0, self.share - 1), self.weight)
        return self.team.sum(x * here.unsqueeze(-1).astype(x.dtype))


class SharedHead(nn.Layer):
    """The output head, of which a rank holds a run of the vocabulary; every rank gets all logits."""

    def __init__(self, split: ShardPlan, team: Team):
        super().__init__()
        self.team, self.vocabulary = team, split.vocabulary
        self.weight = self.create_parameter([split.width, split.vocabulary_share])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [.., D] -> [.., V]
        return self.team.gather(linear(x, self.weight), axis=-1)[..., : self.vocabulary]


def decoder_of(network: nn.Layer) -> DecoderForCausalLM:
    """The decoder of a network, or the network that is one."""
    return getattr(network, "language_model", network)


def share_out(network: nn.Layer, split: ShardPlan, team: Team) -> None:
    """Put layers of this rank's size in the place of a network's that has no memory yet (call it under LazyGuard)."""
    decoder = decoder_of(network)
    for layer in decoder.model.layers:
        for name, part in list(layer.named_sublayers()):
            cut = split.shard_of(f"layers.0.{name}.weight") if isinstance(part, nn.Linear) else None
            if cut is not None:
                shape = list(part.weight.shape)
                shape[cut.axis] = cut.length
                parent, _, child = name.rpartition(".")
                setattr(
                    getattr(layer, parent), child, Linear(*shape, bias_attr=None if part.bias is not None else False)
                )
    decoder.model.embed_tokens = SharedEmbedding(split, team)
    decoder.lm_head = SharedHead(split, team)
    decoder.own_kv_heads = split.own_kv_heads


def join(network: nn.Layer, team: Team) -> None:
    """Let a filled network's shared layers work together with the other ranks'."""
    for parameter in network.parameters():
        parameter.stop_gradient = True
    for name, layer in decoder_of(network).named_sublayers():
        if name.endswith(SUMMED):
            layer.register_forward_post_hook(lambda _layer, _inputs, output: team.sum(output))
    if hasattr(network, "extract_feature"):
        network.extract_feature = _shared_tiles(network.extract_feature, network, team)
        network.feature_steps = lambda pixel_values: iter([network.extract_feature(pixel_values)])


def _shared_tiles(extract_feature, network, team: Team):
    def extract(pixel_values: paddle.Tensor) -> paddle.Tensor:  # [T, 3, S, S] -> [T, N, D]
        tiles = pixel_values.shape[0]
        share = -(-tiles // team.size)
        own = pixel_values[team.rank * share : (team.rank + 1) * share]
        shape, dtype = [network.num_image_token, network.config.llm_config.hidden_size], network.mlp1[1].bias.dtype
        features = [extract_feature(own)] if own.shape[0] else []
        if own.shape[0] < share:
            features.append(paddle.zeros([share - own.shape[0], *shape], dtype))
        return team.gather(paddle.concat(features), axis=0)[:tiles]

    return extract
