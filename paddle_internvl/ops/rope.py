"""Rotary position embedding (RoPE): tables of cosines and sines by position, and their application to q and k.

Kinds: 'default'; 'linear' (positions divided by a factor); 'dynamic' (NTK: beyond the trained length the base grows
with the length; upstream modeling_internlm2.py, InternLM2DynamicNTKScalingRotaryEmbedding); 'su' or 'longrope', and
'yarn' (Phi-3: frequencies divided by short or long factors, tables times a constant; upstream modeling_phi3.py). Knows
nothing of attention. Tables that depend on a length are not kept, so that a long request changes no later one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import paddle
import paddle.incubate.nn.functional as fused
from paddle.autograd import PyLayer

from paddle_internvl.kernels import operators
from paddle_internvl.ops import dispatch


def keeps_frequencies(position_ids: paddle.Tensor) -> bool:
    """Whether rotary frequencies are kept between calls: on a CPU, where operations that small cost as much as a
    layer's products. On a card the question whether they still hold would be a copy to the host."""
    return paddle.in_dynamic_mode() and position_ids.place.is_cpu_place()


@dataclass(frozen=True)
class Rope:
    """Settings of a rotary embedding.

    Attributes:
        head_dim: E, even.
        theta: base of the frequencies.
        kind: see the module.
        factor: of 'linear' and 'dynamic'.
        trained_length: `max_position_embeddings`, where 'dynamic' begins.
        short_factor: E/2 divisors up to `original_length`, of Phi-3's kinds.
        long_factor: E/2 divisors beyond it.
        original_length: length at which the long factors begin.
    """

    head_dim: int
    theta: float
    kind: str = "default"
    factor: float = 1.0
    trained_length: int = 0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    original_length: int = 0
    _kept: list[paddle.Tensor] = field(default_factory=list, repr=False, compare=False)

    @property
    def magnitude(self) -> float:
        """Factor of cosines and sines in Phi-3's kinds, at every length."""
        stretch = self.trained_length / self.original_length if self.short_factor else 1.0
        if stretch <= 1.0:
            return 1.0
        if self.kind == "yarn":
            return 0.1 * math.log(stretch) + 1.0
        return math.sqrt(1 + math.log(stretch) / math.log(self.original_length))

    @property
    def stable_length(self) -> float:
        """Number of positions up to which the tables do not depend on the length of the text."""
        if self.kind == "dynamic":
            return self.trained_length
        return self.original_length if self.short_factor else math.inf

    def tables(
        self, position_ids: paddle.Tensor, length: int | paddle.Tensor = 0
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Cosines and sines for `apply`.

        Args:
            position_ids: int64 [B, L].
            length: of the whole text that the positions are a part of, where it goes on behind them; or int64 [B, L],
                the length of each position's segment in a pack.
        Returns:
            cos, sin: float32 [B, L, 1, E]; the second half of E repeats the first.
        """
        positions = position_ids.astype("float32")  # [B, L]
        if self.kind == "linear":
            positions = positions / self.factor
        angles = positions.unsqueeze(-1) * self._inverse_frequencies(position_ids, length)  # [B, L, E/2]
        angles = paddle.concat([angles, angles], axis=-1).unsqueeze(2)  # [B, L, 1, E]
        cos, sin, magnitude = angles.cos(), angles.sin(), self.magnitude
        return (cos, sin) if magnitude == 1.0 else (cos * magnitude, sin * magnitude)

    def _inverse_frequencies(self, position_ids: paddle.Tensor, length) -> paddle.Tensor:
        """float32 [B or 1, L or 1, E/2]; those of texts up to `stable_length` may be kept."""
        if not keeps_frequencies(position_ids) or not self._stable(position_ids, length):
            return self._computed(position_ids, length)
        if not self._kept:
            self._kept.append(self._computed(position_ids, length)[:1, :1])
        return self._kept[0]

    def _stable(self, position_ids: paddle.Tensor, length) -> bool:
        """Whether every text is at most `stable_length` long."""
        if self.stable_length == math.inf:
            return True
        lengths = length if isinstance(length, int) else int(length.max())
        return max(lengths, int(position_ids.max()) + 1) <= self.stable_length

    def _computed(self, position_ids: paddle.Tensor, length) -> paddle.Tensor:
        base = paddle.full([1, 1, 1], self.theta, "float64")
        if isinstance(length, int):  # of each row by itself: a row does not depend on its neighbours in the batch
            length = (position_ids.max(axis=-1, keepdim=True) + 1).clip(min=length)  # [B, 1]
        length = length.astype("float64").unsqueeze(-1)  # [B, 1 or L, 1]
        if self.kind == "dynamic":
            growth = self.factor * length / self.trained_length - (self.factor - 1)
            growth = growth.clip(min=1.0) ** (self.head_dim / (self.head_dim - 2))
            base = base * growth
        exponent = paddle.arange(0, self.head_dim, 2).astype("float32") / self.head_dim
        frequency_divisor = base.astype("float32") ** exponent  # [B or 1, L or 1, E/2]
        if self.short_factor:
            long, short = paddle.to_tensor(self.long_factor), paddle.to_tensor(self.short_factor)
            frequency_divisor = frequency_divisor * paddle.where(length > self.original_length, long, short)
        return 1.0 / frequency_divisor


def apply(x: paddle.Tensor, cos: paddle.Tensor, sin: paddle.Tensor) -> paddle.Tensor:
    """Rotate x [B, L, H, E] by tables [B, L, 1, E] of x's dtype; halves of E are paired, as in Llama."""
    return IMPLEMENTATIONS[dispatch.choose("rope", x)](x, cos, sin)


def reference_rope(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = paddle.concat([-x[..., half:], x[..., :half]], axis=-1)
    return x * cos + rotated * sin


def fused_rope(x, cos, sin):
    """Paddle's kernel takes one table for all rows of a batch: the rows are passed as one row, B * L long."""
    shape = x.shape
    row, table = [1, -1, *shape[2:]], [1, -1, 1, shape[-1]]
    rotated = fused.fused_rotary_position_embedding(
        x.reshape(row), sin=sin.reshape(table), cos=cos.reshape(table), use_neox_rotary_style=False
    )
    return rotated[0].reshape(shape)


class _NativeRope(PyLayer):
    """The native kernel with its gradient, the rotation back: a sine's second half repeats the first."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return operators.rope(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensor()
        return operators.rope(grad.contiguous(), cos, -sin), None, None


def _native(x, cos, sin):
    if cos.shape[0] != x.shape[0]:
        cos, sin = (table.expand([x.shape[0], -1, -1, -1]).contiguous() for table in (cos, sin))
    return _NativeRope.apply(x, cos, sin) if paddle.is_grad_enabled() else operators.rope(x, cos, sin)


IMPLEMENTATIONS = {"fused": fused_rope, "native": _native, "reference": reference_rope}
