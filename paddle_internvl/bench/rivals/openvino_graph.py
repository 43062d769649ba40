"""OpenVINO graphs of a checkpoint's vision tower, projector and decoder, made of the checkpoint's own weights.

In: tensors under our names and a config.json's dict. Out: `openvino.Model`s. The patterns are those that OpenVINO's CPU
plugin fuses: RMSNorm, rope, attention with a KV cache in states, linear layers with compressed weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
import openvino.opset13 as op

from convert.sizes import DecoderSizes, decoder_sizes, tile_sizes
from paddle_internvl.bench.rivals.openvino_weights import Weights, constant, integer, integers

Node = ov.Node


def vision_graph(config: Mapping, weights: Weights) -> ov.Model:
    """pixels [T, 3, S, S] -> hidden states [T, 1+P, C]."""
    vision, tile = config["vision_config"], tile_sizes(config)
    width, heads = vision["hidden_size"], vision["num_attention_heads"]
    pixels = op.parameter([-1, 3, tile.side, tile.side], ov.Type.f32, "pixels")
    size = vision["patch_size"]
    kernel = weights.vector("vision_model.embeddings.patch_embedding.weight")
    patches = op.convolution(pixels, kernel, [size, size], [0, 0], [0, 0], [1, 1])
    bias = weights.vector("vision_model.embeddings.patch_embedding.bias")
    patches = op.add(patches, op.reshape(bias, integers(1, width, 1, 1), False))
    patches = op.transpose(op.reshape(patches, integers(0, 0, -1), True), integers(0, 2, 1))
    tiles = op.gather(op.shape_of(pixels), integers(0), integer(0))
    first = op.broadcast(
        weights.vector("vision_model.embeddings.class_embedding"), op.concat([tiles, integers(1, width)], 0)
    )
    x = op.concat([first, patches], 1)
    x = op.add(x, weights.vector("vision_model.embeddings.position_embedding"))
    norm = _rms_norm if vision["norm_type"] == "rms_norm" else _layer_norm
    for number in range(vision["num_hidden_layers"]):
        layer, eps = f"vision_model.encoder.layers.{number}.", vision["layer_norm_eps"]
        y = norm(weights, x, f"{layer}norm1", eps)
        qkv = weights.linear(y, f"{layer}attn.qkv", vision["qkv_bias"])
        q, k, v = op.split(qkv, integer(2), 3).outputs()
        if vision["qk_normalization"]:
            q = _rms_norm(weights, q, f"{layer}attn.q_norm", eps)
            k = _rms_norm(weights, k, f"{layer}attn.k_norm", eps)
        q, k, v = (_in_heads(part, heads, width // heads) for part in (q, k, v))
        y = op.scaled_dot_product_attention(q, k, v, causal=False)
        y = weights.linear(_joined(y, width), f"{layer}attn.proj", True)
        x = op.add(x, op.multiply(y, weights.vector(f"{layer}ls1")))
        y = norm(weights, x, f"{layer}norm2", eps)
        y = weights.linear(op.gelu(weights.linear(y, f"{layer}mlp.fc1", True), "erf"), f"{layer}mlp.fc2", True)
        x = op.add(x, op.multiply(y, weights.vector(f"{layer}ls2")))
    return _model("vision", [x], [], {"pixels": pixels})


def projector_graph(config: Mapping, weights: Weights) -> ov.Model:
    """hidden states [T, 1+P, C] -> visual tokens [T, N, D], with upstream's `pixel_shuffle` of version 2."""
    tile, width = tile_sizes(config), config["vision_config"]["hidden_size"]
    merge, grid = tile.merge, tile.grid
    hidden = op.parameter([-1, 1 + tile.patches, width], ov.Type.f32, "hidden")
    x = op.slice(hidden, integers(1), integers(1 + tile.patches), integers(1), integers(1))
    x = op.reshape(x, integers(-1, grid // merge, merge, grid // merge, merge * width), False)
    x = op.reshape(op.transpose(x, integers(0, 1, 3, 2, 4)), integers(0, tile.tokens, -1), True)
    x = _layer_norm(weights, x, "mlp1.0", 1e-5)
    x = weights.linear(op.gelu(weights.linear(x, "mlp1.1", True), "erf"), "mlp1.3", True)
    return _model("projector", [x], [], {"hidden": hidden})


def decoder_graph(config: Mapping, weights: Weights) -> ov.Model:
    """ids, mask, positions, beams -> logits of the last position [1, 1, V]; the KV cache is the model's state.

    Raises:
        ValueError: a family with experts, or rope that is scaled.
    """
    llm = config["llm_config"]
    sizes = decoder_sizes(llm)
    if sizes.experts or llm.get("rope_scaling") or llm.get("use_sliding_window"):
        raise ValueError("OpenVINO's side has no experts, no rope_scaling and no sliding window")
    kinds = {"input_ids": ov.Type.i64, "attention_mask": ov.Type.i64, "position_ids": ov.Type.i64}
    inputs = {name: op.parameter([-1, -1], kind, name) for name, kind in kinds.items()}
    inputs["beam_idx"] = op.parameter([-1], ov.Type.i32, "beam_idx")
    root = "language_model.model."
    x = weights.rows(inputs["input_ids"], f"{root}embed_tokens")
    shared = _Shared(inputs, llm, sizes.head_dim)
    for number in range(sizes.layers):
        layer, eps = f"{root}layers.{number}.", llm["rms_norm_eps"]
        y = _rms_norm(weights, x, f"{layer}input_layernorm", eps)
        x = op.add(x, _attention(weights, y, layer, sizes, eps, shared))
        y = _rms_norm(weights, x, f"{layer}post_attention_layernorm", eps)
        gate = op.swish(weights.linear(y, f"{layer}mlp.gate_proj"))
        y = op.multiply(gate, weights.linear(y, f"{layer}mlp.up_proj"))
        x = op.add(x, weights.linear(y, f"{layer}mlp.down_proj"))
    x = op.gather(x, integers(-1), integer(1))
    x = _rms_norm(weights, x, f"{root}norm", llm["rms_norm_eps"])
    logits = weights.linear(x, "language_model.lm_head")
    return _model("decoder", [logits], shared.sinks, inputs)


def _model(name: str, results: list[Node], sinks: list[Node], inputs: Mapping[str, Node]) -> ov.Model:
    for key, node in inputs.items():
        node.output(0).set_names({key})
    return ov.Model([op.result(node) for node in results], sinks, [*inputs.values()], name)


def _attention(weights: Weights, x: Node, layer: str, sizes: DecoderSizes, eps: float, shared: _Shared) -> Node:
    """Attention of a layer on its KV cache, [B, L, D]."""
    name, heads, groups, dim = f"{layer}self_attn.", sizes.heads, sizes.kv_heads, sizes.head_dim
    bias = sizes.qkv_bias
    q = _in_heads(weights.linear(x, f"{name}q_proj", bias), heads, dim, transpose=not sizes.qk_norm)
    k = _in_heads(weights.linear(x, f"{name}k_proj", bias), groups, dim, transpose=not sizes.qk_norm)
    v = _in_heads(weights.linear(x, f"{name}v_proj", bias), groups, dim)
    if sizes.qk_norm:
        q = op.transpose(_rms_norm(weights, q, f"{name}q_norm", eps), integers(0, 2, 1, 3))
        k = op.transpose(_rms_norm(weights, k, f"{name}k_norm", eps), integers(0, 2, 1, 3))
    q, k = _rotated(q, shared.rope, dim), _rotated(k, shared.rope, dim)
    k, v = (shared.cached(part, f"{layer}{kind}", groups, dim) for kind, part in (("key", k), ("value", v)))
    k, v = (_repeated(part, heads, groups, dim) for part in (k, v))
    y = op.scaled_dot_product_attention(q, k, v, shared.mask, causal=False)
    return weights.linear(_joined(y, heads * dim), f"{name}o_proj", sizes.output_bias)


class _Shared:
    """What all layers of a decoder share: rope tables, mask, states.

    Args:
        parameters: 'input_ids', 'attention_mask', 'position_ids' and 'beam_idx'.
        llm: `llm_config`.
        dim: E.
    Attributes:
        rope: cos and sin, [B, 1, L, E].
        mask: 0 or -inf, [B, 1, L, M].
        sinks: nodes that write the states.
    """

    def __init__(self, parameters: Mapping[str, Node], llm: Mapping, dim: int):
        self._beams, self.sinks = parameters["beam_idx"], []
        positions = parameters["position_ids"]
        inverse = (1.0 / llm["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float64) / dim)).astype(np.float32)
        angles = op.multiply(op.unsqueeze(op.convert(positions, ov.Type.f32), integer(-1)), constant(inverse))
        angles = op.unsqueeze(op.concat([angles, angles], -1), integer(1))
        self.rope = op.cos(angles), op.sin(angles)
        lengths = op.gather(op.shape_of(parameters["attention_mask"]), integer(1), integer(0))
        keys = op.range(integer(0), lengths, integer(1), ov.Type.i64)
        rows = op.unsqueeze(op.unsqueeze(positions, integer(1)), integer(-1))
        self.mask = op.select(op.less_equal(keys, rows), constant(np.float32(0)), constant(np.float32(-np.inf)))

    def cached(self, new: Node, name: str, groups: int, dim: int) -> Node:
        """The state `name` with the new keys or values [B, K, L, E] behind it."""
        info = ov.op.util.VariableInfo()
        info.variable_id, info.data_type, info.data_shape = name, ov.Type.f32, ov.PartialShape([-1, groups, -1, dim])
        variable = ov.op.util.Variable(info)
        rows = op.shape_of(self._beams)
        empty = op.broadcast(constant(np.float32(0)), op.concat([rows, integers(groups, 0, dim)], 0))
        state = op.gather(ov.op.read_value(empty, variable), self._beams, integer(0))
        whole = op.concat([state, new], 2)
        self.sinks.append(ov.op.assign(whole, variable))
        return whole


def _rotated(x: Node, rope: tuple[Node, Node], dim: int) -> Node:
    first, second = op.variadic_split(x, integer(3), integers(dim // 2, dim // 2)).outputs()
    turned = op.concat([op.multiply(second, constant(np.float32(-1))), first], -1)
    return op.add(op.multiply(x, rope[0]), op.multiply(turned, rope[1]))


def _repeated(x: Node, heads: int, groups: int, dim: int) -> Node:
    """Keys or values of every query head, [B, H, M, E]."""
    if heads == groups:
        return x
    times = integers(1, 1, heads // groups, 1, 1)
    wide = op.broadcast(op.unsqueeze(x, integer(2)), times, broadcast_spec="BIDIRECTIONAL")
    return op.reshape(wide, integers(0, heads, -1, dim), True)


def _in_heads(x: Node, heads: int, dim: int, transpose: bool = True) -> Node:
    """[B, L, H * E] -> [B, H, L, E], or [B, L, H, E] without `transpose`."""
    x = op.reshape(x, integers(0, 0, heads, dim), True)
    return op.transpose(x, integers(0, 2, 1, 3)) if transpose else x


def _joined(x: Node, width: int) -> Node:
    """[B, H, L, E] -> [B, L, H * E]."""
    return op.reshape(op.transpose(x, integers(0, 2, 1, 3)), integers(0, 0, width), True)


def _rms_norm(weights: Weights, x: Node, name: str, eps: float) -> Node:
    squares = op.reduce_mean(op.power(x, constant(np.float32(2))), integers(-1), True)
    scale = op.power(op.add(squares, constant(np.float32(eps))), constant(np.float32(-0.5)))
    return op.multiply(op.multiply(x, scale), weights.vector(f"{name}.weight"))


def _layer_norm(weights: Weights, x: Node, name: str, eps: float) -> Node:
    y = op.mvn(x, integers(-1), True, eps, "inside_sqrt")
    return op.add(op.multiply(y, weights.vector(f"{name}.weight")), weights.vector(f"{name}.bias"))
