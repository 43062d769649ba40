"""Tensor-parallel shards: which part of every decoder parameter each rank holds. Numbers only: no paddle, no files.

Query heads, kv heads, the MLP's features, experts and the vocabulary are sharded in order. Where there are fewer kv
heads than ranks, several ranks hold the same one. Vocabulary shards have equal length, the last one padded with zeros;
the bias of a row-parallel projection, whose outputs are summed over the ranks, is on rank 0 alone. Every rank holds
everything else, the vision tower included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from convert.sizes import decoder_sizes


@dataclass(frozen=True)
class ShardSpec:
    """One rank's part of a parameter.

    Attributes:
        axis: the sharded axis.
        start: first index held.
        stop: index after the last one held.
        length: of the shard; zeros pad it where it is more than stop - start.
        whole: length of the axis in the whole parameter.
    """

    axis: int
    start: int
    stop: int
    length: int
    whole: int

    def shape_of(self, whole_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the shard of a parameter of this shape."""
        return (*whole_shape[: self.axis], self.length, *whole_shape[self.axis + 1 :])

    def whole_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the whole parameter, of a shard of this shape."""
        return (*shape[: self.axis], self.whole, *shape[self.axis + 1 :])


_LAYERED = re.compile(r"(?:^|\.)layers\.\d+\.(?P<name>.+)\.(?P<kind>\w+)$")
# linear layer of a decoder layer -> what is sharded, and whether it is the layer's outputs or its inputs
_LINEARS = {
    "self_attn.q_proj": ("heads", "outputs"),
    "self_attn.k_proj": ("kv_heads", "outputs"),
    "self_attn.v_proj": ("kv_heads", "outputs"),
    "self_attn.o_proj": ("heads", "inputs"),
    "mlp.gate_proj": ("features", "outputs"),
    "mlp.up_proj": ("features", "outputs"),
    "mlp.down_proj": ("features", "inputs"),
}
_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")  # stacked weights, sharded along their first axis
SUMMED = (*(name for name, (_, side) in _LINEARS.items() if side == "inputs"), "mlp.experts")


@dataclass(frozen=True)
class ShardPlan:
    """How one rank of several holds a decoder.

    Args:
        heads: H.
        kv_heads: K.
        head_dim: E.
        features: width of the MLP.
        width: D.
        vocabulary: V.
        rank: the rank.
        size: number of ranks.
        experts: X of a mixture of experts; 0: there is none.
    Raises:
        ValueError: the decoder can't be sharded over `size` ranks; lists the numbers that are possible.
    """

    heads: int
    kv_heads: int
    head_dim: int
    features: int
    width: int
    vocabulary: int
    rank: int
    size: int
    experts: int = 0

    @classmethod
    def of(cls, llm: Mapping, rank: int, size: int) -> ShardPlan:
        """The plan of a decoder.

        Args:
            llm: `llm_config` of a config.json, or the fields of a `DecoderConfig`.
            rank: the rank.
            size: number of ranks.
        """
        sizes = decoder_sizes(llm)
        return cls(
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            features=sizes.features,
            width=sizes.width,
            vocabulary=sizes.vocabulary,
            rank=rank,
            size=size,
            experts=sizes.experts.experts if sizes.experts else 0,
        )

    def __post_init__(self):
        possible = self.possible_sizes
        if self.size not in possible:
            experts = f"{self.experts} experts, " if self.experts else ""
            raise ValueError(
                f"tensor parallel over {self.size} is not possible for {experts}{self.heads} heads, {self.kv_heads} "
                f"kv heads and an MLP of {self.features} features; possible: {', '.join(map(str, possible))}"
            )

    @property
    def possible_sizes(self) -> list[int]:
        """Numbers of ranks that the decoder can be sharded over."""
        return [
            n
            for n in range(1, self.heads + 1)
            if self.heads % n == self.features % n == self.experts % n == 0
            and (self.kv_heads % n == 0 or n % self.kv_heads == 0)
        ]

    @property
    def local_kv_heads(self) -> int:
        """kv heads on this rank."""
        return max(self.kv_heads // self.size, 1)

    @property
    def vocabulary_share(self) -> int:
        """Length of a vocabulary shard."""
        return -(-self.vocabulary // self.size)

    def shard_of(self, parameter: str) -> ShardSpec | None:
        """This rank's shard of a parameter; None: the rank holds it whole.

        Args:
            parameter: its name, with or without the prefix of the decoder.
        """
        if parameter.endswith("model.embed_tokens.weight"):
            return self._vocabulary(axis=0)
        if parameter.endswith("lm_head.weight"):
            return self._vocabulary(axis=1)
        found = _LAYERED.search(parameter)
        if found is None or found["name"] not in (*_LINEARS, *_EXPERTS):
            return None
        if found["name"] in _EXPERTS:
            return ShardSpec(0, *self.local_experts, self.experts // self.size, self.experts)
        sharded, side = _LINEARS[found["name"]]
        start, stop = self._range(sharded)
        whole = self.features if sharded == "features" else getattr(self, sharded) * self.head_dim
        if side == "outputs":
            return ShardSpec(1 if found["kind"] == "weight" else 0, start, stop, stop - start, whole)
        if found["kind"] == "weight":
            return ShardSpec(0, start, stop, stop - start, whole)
        return ShardSpec(0, 0, 0 if self.rank else self.width, self.width, self.width)

    @property
    def local_experts(self) -> tuple[int, int]:
        """First expert on this rank, and the one after the last."""
        return self.rank * self.experts // self.size, (self.rank + 1) * self.experts // self.size

    def _range(self, sharded: str) -> tuple[int, int]:
        if sharded == "kv_heads":
            first = self.rank * self.kv_heads // self.size
            return first * self.head_dim, (first + self.local_kv_heads) * self.head_dim
        total = self.features if sharded == "features" else self.heads * self.head_dim
        return self.rank * total // self.size, (self.rank + 1) * total // self.size

    def _vocabulary(self, axis: int) -> ShardSpec:
        share = self.vocabulary_share
        first = min(self.rank * share, self.vocabulary)
        return ShardSpec(axis, first, min(first + share, self.vocabulary), share, self.vocabulary)
