"""What a stage must do at the least: floating point operations of its products, bytes of weights and cache it reads.

In: a config.json's dict and a stage's numbers. Out: two numbers. Knows no framework: it is the same work for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from convert.mappings import rules_for
from convert.sizes import decoder_sizes, tile_sizes


@dataclass(frozen=True)
class Work:
    """flops: of products. elements: weights that are read once for each run. cache: numbers of keys and values read."""

    flops: float = 0.0
    elements: int = 0
    cache: int = 0

    def bytes(self, bits: int) -> float:
        """Bytes read, where a weight takes so many bits and the cache is float32."""
        return self.elements * bits / 8 + 4 * self.cache


class Costs:
    """The work of every kind of stage, from a config in upstream's spelling."""

    def __init__(self, config: Mapping):
        vision, llm = config["vision_config"], config["llm_config"]
        self._counts: dict[str, int] = {}
        for rule in rules_for(config):
            for name, shape in zip(rule.ours, rule.our_shapes()):
                if len(shape) > 1:
                    part = _part(name)
                    self._counts[part] = self._counts.get(part, 0) + prod(shape)
        tile, decoder = tile_sizes(config), decoder_sizes(llm)
        self.side, self.patches, self.visual = tile.side, tile.patches, tile.tokens
        self._vision = vision["num_hidden_layers"], vision["hidden_size"]
        self._across = decoder.layers * decoder.query_width
        self._kept = decoder.cached_per_token
        # Tied weights are one tensor, which is the table and the head at once.
        self._counts.setdefault("head", self._counts.get("table", 0))

    def vision(self, tiles: int) -> Work:
        """Tiles through the vision tower."""
        layers, width = self._vision
        rows = tiles * (1 + self.patches)
        patches = 2.0 * tiles * self.patches * self._counts["patches"]
        attention = 4.0 * layers * width * rows * (1 + self.patches)
        weights = self._counts["vision"]
        return Work(patches + 2.0 * rows * weights + attention, weights + self._counts["patches"])

    def projector(self, tiles: int) -> Work:
        """Features to visual tokens."""
        return Work(2.0 * tiles * self.visual * self._counts["projector"], self._counts["projector"])

    def prefill(self, length: int, batch: int = 1) -> Work:
        """Prompts, with the logits of the last position of each; causal attention sees half of the square."""
        weights, head = self._counts["decoder"], self._counts["head"]
        flops = 2.0 * length * weights + 2.0 * self._across * length**2 + 2.0 * head
        return Work(batch * flops, weights + head)

    def decode(self, length: int, batch: int = 1) -> Work:
        """One step behind `length` tokens of each row."""
        weights = self._counts["decoder"] + self._counts["head"]
        flops = 2.0 * weights + 4.0 * self._across * length
        return Work(batch * flops, weights, batch * length * self._kept)


def _part(name: str) -> str:
    """Which part of the model a matrix belongs to."""
    if name.startswith("mlp1."):
        return "projector"
    if name.startswith("vision_model."):
        if "patch_embedding" in name:
            return "patches"
        return "vision" if ".layers." in name else "positions"
    if "embed_tokens" in name:
        return "table"
    return "head" if "lm_head" in name else "decoder"
