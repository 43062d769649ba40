"""How upstream fuses several weights into one: a layout is the list of segments that the fused rows are made of.

In: head counts and widths. Out: segments. They know no names and no arrays, so weight and bias share a layout.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """`length` rows of part number `part`, from its row `part_start`; in the fused weight they begin at `start`."""

    part: int
    part_start: int
    length: int
    start: int


def _in_order(pieces: list[tuple[int, int, int]]) -> tuple[Segment, ...]:
    segments, start = [], 0
    for part, part_start, length in pieces:
        segments.append(Segment(part, part_start, length, start))
        start += length
    return tuple(segments)


def stacked(*lengths: int) -> tuple[Segment, ...]:
    """Parts one after the other. Phi-3's `qkv_proj` is stacked(H * E, K * E, K * E), its `gate_up_proj` stacked(I, I):

        | q0 q1 ... | k0 k1 ... | v0 v1 ... |        | gate | up |

    Source: upstream `modeling_phi3.py`, `Phi3Attention.forward` and `Phi3MLP.forward`.
    """
    return _in_order([(part, 0, length) for part, length in enumerate(lengths)])


def internlm2_qkv(heads: int, kv_heads: int, head_dim: int) -> tuple[Segment, ...]:
    """InternLM2 `wqkv`: interleaved per kv head, not thirds. With H = 4, K = 2 the rows are, E rows a box:

        | q0 | q1 | k0 | v0 | q2 | q3 | k1 | v1 |

    Source: upstream `modeling_internlm2.py`, `InternLM2Attention.forward` ('b q (h gs d)', gs = H / K + 2).
    """
    group = heads // kv_heads * head_dim
    pieces = []
    for kv in range(kv_heads):
        pieces += [(0, kv * group, group), (1, kv * head_dim, head_dim), (2, kv * head_dim, head_dim)]
    return _in_order(pieces)
