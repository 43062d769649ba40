"""Tensor-parallel shards: which part of every decoder parameter each rank holds. Numbers only: no paddle, no files.

In: the sizes of a decoder, a rank of so many. Out: a `ShardSpec` for each sharded parameter. Query heads, kv heads,
the MLP's inner features and the vocabulary are shared out in order. Where there are fewer kv heads than ranks, ranks
that share one hold it each. The vocabulary's shares are of equal length, the last one filled up with zeros; the bias of
a projection whose outputs are summed over the ranks is rank 0's alone. All else, the vision tower included, every rank
holds whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from convert.sizes import decoder_sizes


@dataclass(frozen=True)
class ShardSpec:
    """`[start, stop)` of a parameter's axis; zeros follow up to `length`, if that is more."""

    axis: int
    start: int
    stop: int
    length: int


_LAYERED = re.compile(r"(?:^|\.)layers\.\d+\.(?P<name>.+)\.(?P<kind>\w+)$")
# layer of a decoder block -> what is shared out, and whether it is the layer's outputs or its inputs
_BLOCK = {
    "self_attn.q_proj": ("heads", "outputs"),
    "self_attn.k_proj": ("kv_heads", "outputs"),
    "self_attn.v_proj": ("kv_heads", "outputs"),
    "self_attn.o_proj": ("heads", "inputs"),
    "mlp.gate_proj": ("features", "outputs"),
    "mlp.up_proj": ("features", "outputs"),
    "mlp.down_proj": ("features", "inputs"),
}
SUMMED = tuple(name for name, (_, side) in _BLOCK.items() if side == "inputs")


@dataclass(frozen=True)
class ShardPlan:
    """How rank `rank` of `size` holds a decoder.

    Args:
        heads, kv_heads: H, K. head_dim: E. features: width of the MLP. width: D. vocabulary: V.
    Raises:
        ValueError: that many ranks can't share it; lists the numbers that can.
    """

    heads: int
    kv_heads: int
    head_dim: int
    features: int
    width: int
    vocabulary: int
    rank: int
    size: int

    @classmethod
    def of(cls, llm: Mapping, rank: int, size: int) -> ShardPlan:
        """Of a language model's part of a config.json."""
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
        )

    def __post_init__(self):
        possible = self.possible_sizes
        if self.size not in possible:
            raise ValueError(
                f"tensor parallel over {self.size} is not possible for {self.heads} heads, {self.kv_heads} kv heads "
                f"and an MLP of {self.features} features; possible: {', '.join(map(str, possible))}"
            )

    @property
    def possible_sizes(self) -> list[int]:
        """The numbers of ranks that can share the decoder."""
        return [
            n
            for n in range(1, self.heads + 1)
            if self.heads % n == 0 and self.features % n == 0 and (self.kv_heads % n == 0 or n % self.kv_heads == 0)
        ]

    @property
    def own_kv_heads(self) -> int:
        """kv heads that the rank holds."""
        return max(self.kv_heads // self.size, 1)

    @property
    def vocabulary_share(self) -> int:
        """Tokens of the vocabulary that each rank has room for."""
        return -(-self.vocabulary // self.size)

    def shard_of(self, parameter: str) -> ShardSpec | None:
        """The rank's part of a decoder's parameter, by its name; None: all of it.

        Args:
            parameter: with or without what stands before the decoder's own name.
        """
        if parameter.endswith("model.embed_tokens.weight"):
            return self._vocabulary(axis=0)
        if parameter.endswith("lm_head.weight"):
            return self._vocabulary(axis=1)
        found = _LAYERED.search(parameter)
        if found is None or found["name"] not in _BLOCK:
            return None
        what, side = _BLOCK[found["name"]]
        start, stop = self._range(what)
        if side == "outputs":
            return ShardSpec(1 if found["kind"] == "weight" else 0, start, stop, stop - start)
        if found["kind"] == "weight":
            return ShardSpec(0, start, stop, stop - start)
        return ShardSpec(0, 0, 0 if self.rank else self.width, self.width)

    def _range(self, what: str) -> tuple[int, int]:
        if what == "kv_heads":
            count = self.own_kv_heads
            first = self.rank * self.kv_heads // self.size
            return first * self.head_dim, (first + count) * self.head_dim
        total = self.features if what == "features" else self.heads * self.head_dim
        return self.rank * total // self.size, (self.rank + 1) * total // self.size

    def _vocabulary(self, axis: int) -> ShardSpec:
        share = self.vocabulary_share
        first = min(self.rank * share, self.vocabulary)
        return ShardSpec(axis, first, min(first + share, self.vocabulary), share)
