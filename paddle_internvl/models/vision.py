"""InternViT: pixel tiles in, patch features out.

Follows upstream `modeling_intern_vit.py`. Two kinds, by config: 300M (LayerNorm, biased qkv) and 6B (RMSNorm,
q/k normalisation over the whole width, no qkv bias). There is no norm after the last layer.

Under float16, for cards without bfloat16, the residual stream is kept in float32, where its large activations do not
overflow; products are float16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddlenlp.transformers.model_outputs import BaseModelOutputWithPooling

from paddle_internvl.configuration import InternVisionConfig
from paddle_internvl.models.pretrained import InternVLPretrainedModel
from paddle_internvl.models.projector import torch_linear
from paddle_internvl.models.recomputation import recompute_layer
from paddle_internvl.ops.activations import gelu
from paddle_internvl.ops.attention import attention
from paddle_internvl.ops.native_layers import NativeLayer
from paddle_internvl.ops.norms import LayerNorm, RMSNorm, residual_stream, rms_norm


def _norm(config: InternVisionConfig) -> nn.Layer:
    if config.norm_type == "rms_norm":
        return RMSNorm(config.hidden_size, config.layer_norm_eps)
    return LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)


class DropPath(nn.Layer):
    """Stochastic depth (https://arxiv.org/abs/1603.09382): while training, drop a sample's residual branch.

    Args:
        rate: probability in [0, 1) that a sample's branch is dropped; kept ones are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [T, 1+P, C]
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = paddle.bernoulli(paddle.full([x.shape[0]] + [1] * (x.ndim - 1), keep, dtype="float32"))
        return x * (kept / keep).astype(x.dtype)


def resize_positions(table: paddle.Tensor, height: int, width: int) -> paddle.Tensor:
    """Position embedding resized bicubically, in float32, to another patch grid.

    Args:
        table: [1, 1 + P, C] of a square grid, the class token's row first.
        height: patches along the side of a tile.
        width: patches along its upper side.
    Returns:
        [1, 1 + height * width, C] in the table's dtype.
    Source: upstream `modeling_intern_vit.py`, `InternVisionModel.resize_pos_embeddings`.
    """
    side = math.isqrt(table.shape[1] - 1)
    grid = table[:, 1:].astype("float32").reshape([1, side, side, -1]).transpose([0, 3, 1, 2])
    grid = F.interpolate(grid, size=[height, width], mode="bicubic", align_corners=False)
    grid = grid.flatten(2).transpose([0, 2, 1]).astype(table.dtype)
    return paddle.concat([table[:, :1], grid], axis=1)


class InternVisionEmbeddings(nn.Layer):
    """Patch embedding by a strided convolution, a class token in front, learned positions."""

    def __init__(self, config: InternVisionConfig):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.grid = config.image_size // patch
        normal, bound = nn.initializer.Normal(0.0, 1.0), (config.num_channels * patch**2) ** -0.5
        uniform = paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))  # PyTorch's own, as upstream
        self.class_embedding = self.create_parameter([1, 1, width], default_initializer=normal)
        self.patch_embedding = nn.Conv2D(
            config.num_channels, width, kernel_size=patch, stride=patch, weight_attr=uniform, bias_attr=uniform
        )
        self.position_embedding = self.create_parameter([1, 1 + self.grid**2, width], default_initializer=normal)

    def positions(self, height: int, width: int) -> paddle.Tensor:
        """Position embedding [1, 1 + height * width, C], resized bicubically in float32 to the patch grid."""
        if (height, width) == (self.grid, self.grid):
            return self.position_embedding
        return resize_positions(self.position_embedding, height, width)

    def forward(self, pixel_values: paddle.Tensor) -> paddle.Tensor:  # [T, 3, S, S]
        patches = self.patch_embedding(pixel_values)  # [T, C, height, width]
        tiles, width, grid_h, grid_w = patches.shape
        patches = patches.flatten(2).transpose([0, 2, 1])  # [T, P, C]
        x = paddle.concat([self.class_embedding.expand([tiles, 1, width]), patches], axis=1)
        return residual_stream(x + self.positions(grid_h, grid_w))  # [T, 1+P, C]


class InternAttention(nn.Layer):
    """Multi-head self-attention over the patches of one tile."""

    def __init__(self, config: InternVisionConfig):
        super().__init__()
        width = config.hidden_size
        self.flash = True
        self.num_heads = config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.eps = config.layer_norm_eps
        self.qkv = torch_linear(width, 3 * width, config.qkv_bias)
        self.proj = torch_linear(width, width)
        if config.qk_normalization:
            self.q_norm = RMSNorm(width, config.layer_norm_eps)
            self.k_norm = RMSNorm(width, config.layer_norm_eps)
        self.qk_normalization = config.qk_normalization

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [T, 1+P, C]
        tiles, length, width = x.shape
        q, k, v = self.qkv(x).split(3, axis=-1)
        if self.qk_normalization:  # over all heads together, before they are separated
            q = rms_norm(q, self.q_norm.weight, self.eps)
            k = rms_norm(k, self.k_norm.weight, self.eps)
        q, k, v = (y.reshape([tiles, length, self.num_heads, self.head_dim]) for y in (q, k, v))  # [T, 1+P, H, E]
        return self.proj(attention(q, k, v, causal=False, flash=self.flash).reshape([tiles, length, width]))


class InternMLP(nn.Layer):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, config: InternVisionConfig):
        super().__init__()
        self.fc1 = torch_linear(config.hidden_size, config.intermediate_size)
        self.fc2 = torch_linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(gelu(self.fc1(x)))


class InternVisionEncoderLayer(nn.Layer):
    """Pre-norm attention and MLP, each scaled by a learned vector (layer scale), with stochastic depth in training.

    Attributes:
        native: the layer as one native call, of a model prepared for inference.
    """

    def __init__(self, config: InternVisionConfig, drop_path_rate: float):
        super().__init__()
        self.native: NativeLayer | None = None
        width = config.hidden_size
        scale = nn.initializer.Constant(config.initializer_factor)
        self.attn = InternAttention(config)
        self.mlp = InternMLP(config)
        self.norm1 = _norm(config)
        self.norm2 = _norm(config)
        self.ls1 = self.create_parameter([width], default_initializer=scale)
        self.ls2 = self.create_parameter([width], default_initializer=scale)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:  # [T, 1+P, C]
        if self.native is not None and not self.native.hooked:
            return self.native.encode(x)
        x = x + self.drop_path(self.attn(self.norm1(x)).astype(x.dtype) * self.ls1.astype(x.dtype))
        return x + self.drop_path(self.mlp(self.norm2(x)).astype(x.dtype) * self.ls2.astype(x.dtype))


class InternVisionEncoder(nn.Layer):
    """The layers of the vision tower.

    Attributes:
        enable_recompute: whether layers are recomputed in the backward pass instead of keeping their activations.
    """

    def __init__(self, config: InternVisionConfig):
        super().__init__()
        self.enable_recompute = False
        depth = config.num_hidden_layers
        rates = [config.drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.layers = nn.LayerList([InternVisionEncoderLayer(config, rate) for rate in rates])


class InternVisionNetwork(InternVLPretrainedModel):
    """The vision tower.

    Source: upstream `modeling_intern_vit.py`, `InternVisionModel`.
    """

    config_class = InternVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: InternVisionConfig):
        super().__init__(config)
        self.embeddings = InternVisionEmbeddings(config)
        self.encoder = InternVisionEncoder(config)

    def hidden_states(self, pixel_values: paddle.Tensor, index: int) -> Iterator[paddle.Tensor]:
        """Hidden states of [embeddings, layer 1, ..., layer L] up to `index`, as they are computed.

        Args:
            pixel_values: [T, 3, S, S], normalised.
            index: of the last hidden state, negative from the end. Later layers are not run.
        Returns:
            An iterator of [T, 1+P, C].
        Raises:
            WeightsChangedError: see `require_unchanged_weights`.
        """
        self.require_unchanged_weights()
        layers, encoder = self.encoder.layers, self.encoder
        x = self.embeddings(pixel_values)
        yield x
        recomputes = encoder.enable_recompute and encoder.training and paddle.is_grad_enabled()
        for layer in layers[: index % (len(layers) + 1)]:
            x = recompute_layer(layer, x) if recomputes else layer(x)
            yield x

    def hidden_state(self, pixel_values: paddle.Tensor, index: int) -> paddle.Tensor:
        """The last of `hidden_states`."""
        for x in self.hidden_states(pixel_values, index):
            last = x
        return last

    def forward(self, pixel_values: paddle.Tensor, output_hidden_states: bool = False, return_dict: bool = True):
        """Features of every patch.

        Args:
            pixel_values: [T, 3, S, S], normalised; another side than the config's resizes the positions.
            output_hidden_states: also return the embeddings' and every layer's output.
        Returns:
            `.last_hidden_state` [T, 1+P, C], `.pooler_output` [T, C] (the class token), `.hidden_states` or None,
            in the weights' dtype, but float32 under float16;
            with return_dict=False a tuple of those that are not None.
        """
        # Kept only where they are asked for: all of them together are larger than the weights.
        states = tuple(self.hidden_states(pixel_values, -1)) if output_hidden_states else None
        last = states[-1] if states else self.hidden_state(pixel_values, -1)
        if not return_dict:
            return (last, last[:, 0], states) if output_hidden_states else (last, last[:, 0])
        return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=last[:, 0], hidden_states=states)
