"""From patch features to visual tokens: pixel shuffle and the projector `mlp1`.

In: patch features of the vision tower. Out: visual tokens of the decoder's width. Knows neither tower.
"""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.ops.linear import Linear
from paddle_internvl.ops.norms import GELU, LayerNorm


def pixel_shuffle(x: paddle.Tensor, scale_factor: float = 0.5, version: str = "v2") -> paddle.Tensor:
    """Trade resolution for width: each (1/s x 1/s) block of the grid becomes one position.

    With 'v2' and s = 0.5 the position (r, c) holds the features of (2r, 2c), (2r, 2c+1), (2r+1, 2c), (2r+1, 2c+1) in
    that order. 'v1' leaves the grid transposed, as the first checkpoints were trained.

    Args:
        x: [T, h, w, C]. scale_factor: s. version: 'v1' or 'v2'.
    Returns:
        [T, h*s, w*s, C/s^2].
    Source: upstream `modeling_internvl_chat.py`, `pixel_shuffle`.
    """
    tiles, h, w, c = x.shape
    x = x.reshape([tiles, h, int(w * scale_factor), int(c / scale_factor)])
    x = x.transpose([0, 2, 1, 3])  # [T, w*s, h, C/s]
    x = x.reshape([tiles, int(w * scale_factor), int(h * scale_factor), int(c / scale_factor**2)])
    return x if version == "v1" else x.transpose([0, 2, 1, 3])


def build_projector(config: InternVLChatConfig) -> nn.Sequential:
    """`mlp1`: LayerNorm, Linear, GELU, Linear; [.., C/s^2] -> [.., D]. The indices are the checkpoints' key names."""
    shuffled = config.vision_config.hidden_size * config.tile_sizes.merge**2
    width = config.llm_config.hidden_size
    return nn.Sequential(LayerNorm(shuffled, epsilon=1e-5), Linear(shuffled, width), GELU(), Linear(width, width))
