"""Work of a stage: floating point operations of its matrix products, bytes of weights and KV cache that it reads.

In: a config.json's dict and a stage's numbers. Out: the least work of any implementation. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from convert.mappings import rules_for
from convert.mappings.experts import is_expert
from convert.sizes import decoder_sizes, tile_sizes


@dataclass(frozen=True)
class Work:
    """Work of one run.

    Attributes:
        flops: floating point operations of matrix products.
        elements: weights that are read once.
        cache: numbers of keys and values that are read.
    """

    flops: float = 0.0
    elements: int = 0
    cache: int = 0

    def bytes(self, bits: int) -> float:
        """Bytes read with weights of so many bits and a float32 KV cache."""
        return self.elements * bits / 8 + 4 * self.cache


class Costs:
    """Work of every kind of stage.

    Args:
        config: a config.json's dict, in upstream's spelling.
    """

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
        self._cached_per_token = decoder.cached_per_token
        self._experts = decoder.experts
        # With tied weights one tensor is both table and head.
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
        """Prefill of prompts with the last positions' logits; causal attention computes half of the square."""
        head = self._counts["head"]
        flops = 2.0 * length * self._decoder(1) + 2.0 * self._across * length**2 + 2.0 * head
        return Work(batch * flops, self._decoder(batch * length) + head)

    def decode(self, length: int, batch: int = 1) -> Work:
        """One decode step of each row after `length` cached tokens."""
        head = self._counts["head"]
        flops = 2.0 * (self._decoder(1) + head) + 4.0 * self._across * length
        return Work(batch * flops, self._decoder(batch) + head, batch * length * self._cached_per_token)

    def _decoder(self, tokens: int) -> int:
        """Weights of the decoder's layers that so many tokens read; of the experts' the expected share."""
        experts = self._counts.get("experts", 0)
        if experts:
            experts = round(experts * self._experts.expected(tokens) / self._experts.experts)
        return self._counts["decoder"] + experts


def _part(name: str) -> str:
    """The part of the model that a matrix belongs to."""
    if name.startswith("mlp1."):
        return "projector"
    if name.startswith("vision_model."):
        if "patch_embedding" in name:
            return "patches"
        return "vision" if ".layers." in name else "positions"
    if is_expert(name):
        return "experts"
    if "embed_tokens" in name:
        return "table"
    return "head" if "lm_head" in name else "decoder"
