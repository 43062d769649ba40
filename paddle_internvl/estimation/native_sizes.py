"""What a model takes on a CPU with the C++ operators (`kernels`).

Weights stay as the checkpoint has them, no scores are held, and what lies between two products of a layer is worked on
in strips. That memory is the operators' own and kept between calls, so it stands beside the costliest moment. Mapped
weights count as weights: they are in memory once they have been used.
"""

from __future__ import annotations

from math import prod

from paddle_internvl.estimation.sizes import SAMPLING, TILES, Sizes
from paddle_internvl.runtime import cpu_threads

_STRIP = 1024  # rows whose activations are kept at a time: kStrip of csrc/layers.h
_LAID_OUT = 4 << 20  # numbers of keys and values laid out at a time: kLaidOut of csrc/attention.h
_OF_A_THREAD = 2 << 20  # bytes of blocks of weights and of sums


class NativeSizes(Sizes):
    """As `Sizes`."""

    def _held(self, name: str, shape: tuple[int, ...]) -> int:
        if self._in_few_bits(name, shape):
            k, n = shape
            numbers = n * (1 if self.group == -1 else k // self.group) * (2 if self.awq else 1)  # scales, offsets
            return k * n * self.bits // 8 + 4 * numbers
        return prod(shape) * (self.plan.held if len(shape) == 2 and name.endswith(".weight") else 4)

    def besides(self) -> int:
        """The operators' own memory."""
        seen = min(self.plan.tiles * self.plan.batch, TILES)
        at_once = min(seen, max(1, _STRIP // self.patches)) * self.patches  # rows of the tower
        shuffled = seen * (self.patches - 1) * self.vision_width  # what the projector takes
        read, strip = self.plan.context, min(self.plan.context, _STRIP)
        seeing = at_once * max(self.vision_width, self.vision_features)
        widest = max(seeing, shuffled, strip * max(self.features, self.width))  # what goes into a product
        layer = max(3 * self.vision_width * at_once, (self.queries + 2 * self.keys) * read)  # q, k and v
        layer += max(self.vision_width * at_once, self.queries * read)  # what was attended
        layer += max(self.vision_features * at_once, self.features * strip)  # within the MLP
        layer += max(self.vision_width * at_once, self.width * strip)  # normalised
        laid_out = min(2 * self.keys * read, max(_LAID_OUT, 2 * self.split.head_dim * read))
        return 4 * (widest + layer + max(laid_out, 2 * self.vision_width * at_once)) + cpu_threads() * _OF_A_THREAD

    def seeing(self) -> int:
        """One micro-batch: its pixels as a tensor, and a layer's input and result."""
        tiles = min(self.plan.tiles * self.plan.batch, TILES)
        return tiles * (3 * self.patches * self.vision_width + 3 * self.side**2) * 4

    def reading(self) -> int:
        """A whole prompt: its embeddings, and a layer's input and result."""
        return 3 * self.width * self.plan.context * 4

    def speaking(self) -> int:
        """One decode step: the logits."""
        return self.plan.batch * self.split.vocabulary * (4 + SAMPLING)
