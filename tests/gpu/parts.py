"""CUDA programs of the parts of a network (vision, prefill, decode, training), each traced as a layer.

In: a case of configs/tiny, a dtype, a compute capability. Out: name -> Graph. Runs in a process of its own, where the
placeholders of CUDA's operators may stay: `python -m tests.gpu.parts CASE:DTYPE:MAJOR:PART,PART ...` prints one JSON
document for `test_graphs`.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from unittest import mock

warnings.filterwarnings("ignore")

from paddle_internvl import startup  # noqa: E402

startup.import_paddle()  # lean

import paddle  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.static import InputSpec  # noqa: E402

from convert.mappings import paddle_config  # noqa: E402
from convert.mappings.experts import is_router  # noqa: E402
from convert.quant_layout import packing_obstacle  # noqa: E402
from paddle_internvl.engine.paged_kv_cache import PagedKVCache  # noqa: E402
from paddle_internvl.modeling import InternVLChatModel  # noqa: E402
from paddle_internvl.models import recomputation  # noqa: E402
from paddle_internvl.models.loss import _LabelLogProbs  # noqa: E402
from paddle_internvl.ops.quantized_linear import QuantizedLinear  # noqa: E402
from paddle_internvl.ops.stacked_linear import QuantizedStackedLinear, StackedLinear  # noqa: E402
from paddle_internvl.training.lora import add_lora  # noqa: E402
from paddle_internvl.training.trainable import set_trainable  # noqa: E402
from tests.gpu import graph, pretending  # noqa: E402
from tests.gpu.configs import traced_config  # noqa: E402

HEAD = 16  # width of a vision head: that of the tiny configs, 12, is one that flash attention does not take
B, L, PAST, TILES = 2, 9, 7, 2
QUANTIZED = ("decode in 8 bits", "decode in 4 bits")  # after the other parts: the network is replaced
_TOWER, _LLM = {"freeze_backbone": True}, {"freeze_llm": True}
TRAINING = {  # part of the network that is trained -> arguments of `set_trainable`
    "training": {},
    "training projector and decoder": _TOWER,
    "training projector": {**_TOWER, **_LLM},
    "training tower and projector": _LLM,
    "training last tower layer": {**_TOWER, **_LLM, "freeze_mlp": True, "unfreeze_vit_layers": -1},
    "training adapters": {**_TOWER, **_LLM, "freeze_mlp": True},
    "training packed": _TOWER,
    "training recomputed": _TOWER,
}


def network(case: str, dtype: str) -> InternVLChatModel:
    """A random network of a tiny config, widened to sizes that flash attention and the weight-only kernels accept."""
    config = traced_config(case)
    vision, language = config["vision_config"], config["llm_config"]
    vision["hidden_size"] = HEAD * vision["num_attention_heads"]
    language["hidden_size"] = (16 if "phi3" in case else 64) * language["num_attention_heads"]
    language["intermediate_size"] = language["moe_intermediate_size"] = 128
    if "head_dim" in language:
        language["head_dim"] = 32
    model = InternVLChatModel(InternVLChatModel.config_class.from_dict(paddle_config(config)))
    model.img_context_token_id = 7
    model.to(dtype=dtype)
    return model


def spec(shape, dtype) -> InputSpec:
    """An input without a gradient."""
    return InputSpec(shape, dtype, stop_gradient=True)


class Part(nn.Layer):
    """A network with one method for each traced part. Paddle traces `forward`: see `part`."""

    def __init__(self, model: InternVLChatModel):
        super().__init__()
        self.model = model

    def vision(self, pixel_values):
        return self.model.extract_feature(pixel_values)

    def prefill(self, embeds, positions):
        decoder = self.model.language_model
        cache = decoder.new_cache(B, L)
        return decoder(inputs_embeds=embeds, position_ids=positions, cache=cache, last_only=True)

    def padded_prefill(self, embeds, mask):
        return self.model.language_model(inputs_embeds=embeds, attention_mask=mask)

    def decode(self, ids, positions):
        decoder = self.model.language_model
        cache = decoder.new_cache(B, PAST + 1)
        cache.advance(PAST)
        return decoder(input_ids=ids, position_ids=positions, cache=cache)

    def paged_decode(self, ids, positions):
        decoder = self.model.language_model
        cache = PagedKVCache(decoder, 4)
        rows = cache.rows([[0, 1], [2]], [17, 3], 1)
        return decoder(input_ids=ids, position_ids=positions, cache=rows)

    def prefill_after_prefix(self, embeds, positions):
        decoder = self.model.language_model
        cache = PagedKVCache(decoder, 4)
        rows = cache.rows([[0, 1]], [PAST], L)
        return decoder(inputs_embeds=embeds, position_ids=positions, cache=rows)

    def whole(self, pixel_values, ids, mask, flags, labels):
        return self.model(pixel_values, ids, mask, image_flags=flags, labels=labels, return_dict=False)

    def loss(self, pixel_values, ids, mask, flags, labels):
        return self.whole(pixel_values, ids, mask, flags, labels)[0]

    def packed_loss(self, pixel_values, ids, positions, segments, weights, labels):
        return self.model(
            pixel_values, ids, position_ids=positions, labels=labels, segment_ids=segments, loss_weight=weights,
            return_logits=False, return_dict=False,
        )[0]  # fmt: skip

    def head_loss(self, hidden, labels, grad):
        return head_gradients(self.model.language_model.lm_head.weight, hidden, labels, grad)


def head_gradients(weight, hidden, labels, grad):
    """Log-probabilities of labels and the gradients of hidden states and head, as they are made outside of a graph."""
    context = _Context()
    log_probs = _LabelLogProbs.forward(context, hidden, weight, labels, L)
    return log_probs, *_LabelLogProbs.backward(context, grad)[:2]


class _Context:
    """The context that Paddle hands to a PyLayer's forward and backward pass."""

    def save_for_backward(self, *tensors):
        self._tensors = tensors

    def saved_tensor(self):
        return self._tensors


def part(model, name: str) -> Part:
    """The layer whose `forward` is the method `name`."""
    return type(name, (Part,), {"forward": getattr(Part, name)})(model)


def parts(model) -> dict[str, tuple[str, list[InputSpec]]]:
    """name -> (method of `Part`, its inputs)."""
    config = model.config
    side, width = config.force_image_size, config.llm_config.hidden_size
    dtype = str(model.get_input_embeddings().weight.dtype).removeprefix("paddle.")
    pixels = spec([TILES, 3, side, side], "float32")
    embeds, ids, one = spec([B, L, width], dtype), spec([B, L], "int64"), spec([B, 1], "int64")
    batch = [pixels, ids, spec([B, L], "int64"), spec([TILES], "int64"), spec([B, L], "int64")]
    return {
        "vision": ("vision", [pixels]),
        "prefill": ("prefill", [embeds, ids]),
        "padded prefill": ("padded_prefill", [embeds, spec([B, L], "int64")]),
        "prefill after a prefix": ("prefill_after_prefix", [spec([1, L, width], dtype), spec([1, L], "int64")]),
        "decode": ("decode", [one, one]),
        "paged decode": ("paged_decode", [one, one]),
        "whole": ("whole", batch),
        **dict.fromkeys(TRAINING, ("loss", batch)),
        "training packed": (
            "packed_loss",
            [
                pixels,
                *[spec([1, B * L], "int64")] * 2,
                spec([1, B * L], "int32"),
                spec([1, B * L], "float32"),
                spec([1, B * L], "int64"),
            ],
        ),
        "loss": ("head_loss", [InputSpec([B * L, width], dtype), spec([B * L], "int64"), spec([B * L], "float32")]),
    }


def quantise(model, bits: int, dtype: str) -> None:
    """Replace the decoder blocks' linear layers by quantized ones in a card's layout."""
    for layer in model.language_model.model.layers:
        for holder in (layer.self_attn, layer.mlp, getattr(layer.mlp, "experts", None)):
            for name, linear in list(holder.named_children()) if holder else []:
                if not isinstance(linear, (paddle.nn.Linear, StackedLinear)) or is_router(f"mlp.{name}"):
                    continue
                *experts, k, n = linear.weight.shape
                assert not packing_obstacle(k, n, bits, -1), packing_obstacle(k, n, bits, -1)
                if experts:
                    quantized = QuantizedStackedLinear(*experts, k, n, bits, -1)
                else:
                    quantized = QuantizedLinear(k, n, bits, -1, bias=linear.bias is not None)
                    quantized.bias = linear.bias
                quantized.implementation = "kernel"
                quantized.quant_weight = paddle.zeros([*experts, n * bits // 8, k], "int8")
                quantized.quant_scale = paddle.zeros([*experts, n], dtype)
                setattr(holder, name, quantized)


def trained_network(case: str, dtype: str, name: str) -> InternVLChatModel:
    """A network of which the part of `TRAINING` called `name` is trained."""
    model = network(case, "float32")
    if name == "training adapters":
        add_lora(model, use_llm_lora=8, use_backbone_lora=8, lora_dropout=0.05)
    set_trainable(model, **TRAINING[name])
    for stack in (model.vision_model.encoder, model.language_model.model):
        stack.enable_recompute = name == "training recomputed"
    model.to(dtype=dtype)
    return model


def graphs(case: str, dtype: str, capability: tuple[int, int], names: Sequence[str]) -> dict[str, graph.Graph]:
    """Programs of the parts called `names`."""
    programs = {}
    with pretending.card(capability):
        model = network(case, dtype)
        for name in names:
            bits = int(name.removeprefix("decode in ")[0]) if name in QUANTIZED else 0
            if bits:
                model = network(case, dtype)
                quantise(model, bits, dtype)
            training = name in TRAINING
            if training:
                model = trained_network(case, dtype, name)
            model.train() if training else model.eval()
            for parameter in () if training else model.parameters():
                parameter.stop_gradient = name != "loss"
            method, inputs = parts(model)["decode" if bits else name]
            with mock.patch.object(recomputation, "recompute", lambda layer, *tensors: layer(*tensors)):
                programs[name] = graph.build(part(model, method), *inputs, backward=training)
    return programs


def document(case: str, dtype: str, major: str, names: str) -> dict:
    """Findings about the programs of `graphs`, for JSON; `names` are separated by commas."""
    return {
        name: {
            "faults": program.faults(dtype),
            "casts": [[*kind, count] for kind, count in sorted(program.casts().items())],
            "count": program.count(),
            "kernels": sorted(program.kernels()),
            "outputs": program.outputs,
        }
        for name, program in graphs(case, dtype, (int(major), 0), names.split(",")).items()
    }


def main(requests: list[str]) -> None:
    """Print a JSON document, 'case:dtype:major' -> findings, for arguments 'case:dtype:major:parts'."""
    print(json.dumps({request.rpartition(":")[0]: document(*request.split(":")) for request in requests}))


if __name__ == "__main__":
    main(sys.argv[1:])
