"""Pixel shuffle and the projector `mlp1`: patch features of the vision tower to visual tokens for the decoder."""

from __future__ import annotations

import paddle
from paddle import nn

from paddle_internvl.configuration import InternVLChatConfig
from paddle_internvl.ops.activations import GELU
from paddle_internvl.ops.norms import LayerNorm


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


def torch_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Linear layer with PyTorch's initial values, which upstream leaves to the vision tower and the projector."""
    bound = inputs**-0.5
    weight, zero_mean = (paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound)) for _ in range(2))
    return nn.Linear(inputs, outputs, weight_attr=weight, bias_attr=zero_mean if bias else False)


def build_projector(config: InternVLChatConfig) -> nn.Sequential:
    """`mlp1`: LayerNorm, Linear, GELU, Linear; [.., C/s^2] -> [.., D]. The indices are the checkpoints' key names."""
    shuffled = config.vision_config.hidden_size * config.tile_sizes.merge**2
    width = config.llm_config.hidden_size
    return nn.Sequential(
        LayerNorm(shuffled, epsilon=1e-5), torch_linear(shuffled, width), GELU(), torch_linear(width, width)
    )
