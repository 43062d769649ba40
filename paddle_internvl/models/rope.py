"""Rotary position embedding: positions in, cosines and sines out, and their application to q and k.

Kinds: 'default'; 'linear' (positions divided by a factor); 'dynamic' (NTK: beyond the trained length the base grows
with the length, https://github.com/OpenGVLab/InternVL modeling_internlm2.py InternLM2DynamicNTKScalingRotaryEmbedding).
It knows nothing of attention. Nothing is kept between calls: one long request changes no later one.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle


@dataclass(frozen=True)
class Rope:
    """How positions turn into angles.

    Args:
        head_dim: E, even. theta: the base. kind: 'default', 'linear' or 'dynamic'.
        factor: of 'linear' and 'dynamic'. trained_length: `max_position_embeddings`, where 'dynamic' begins.
    """

    head_dim: int
    theta: float
    kind: str = "default"
    factor: float = 1.0
    trained_length: int = 0

    def tables(self, position_ids: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Cosines and sines for `apply`.

        Args:
            position_ids: int64 [B, L].
        Returns:
            cos, sin: float32 [B, L, 1, E]; the second half of E repeats the first.
        """
        positions = position_ids.astype("float32")  # [B, L]
        if self.kind == "linear":
            positions = positions / self.factor
        base = paddle.full([1, 1], self.theta, "float64")
        if self.kind == "dynamic":
            # The length of each row by itself, so that a row does not depend on its neighbours in the batch.
            length = position_ids.max(axis=-1, keepdim=True).astype("float64") + 1  # [B, 1]
            growth = self.factor * length / self.trained_length - (self.factor - 1)
            growth = growth.clip(min=1.0) ** (self.head_dim / (self.head_dim - 2))
            base = base * growth
        exponent = paddle.arange(0, self.head_dim, 2).astype("float32") / self.head_dim
        inverse_frequency = 1.0 / base.astype("float32") ** exponent  # [B or 1, E/2]
        angles = positions.unsqueeze(-1) * inverse_frequency.unsqueeze(1)  # [B, L, E/2]
        angles = paddle.concat([angles, angles], axis=-1).unsqueeze(2)  # [B, L, 1, E]
        return angles.cos(), angles.sin()


def apply(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Rotate x [B, L, H, E] by tables [B, L, 1, E] of x's dtype; halves of E are paired, as in Llama."""
    half = x.shape[-1] // 2
    rotated = paddle.concat([-x[..., half:], x[..., :half]], axis=-1)
    return x * cos + rotated * sin
