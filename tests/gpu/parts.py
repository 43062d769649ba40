"""The parts of a network whose CUDA programs are examined, each as a layer with the inputs it is given.

In: a case of configs/tiny, a dtype, what a card can do. Out: name -> Graph. Run it in a process of its own, where the
placeholders may stay: `python -m tests.gpu.parts CASE:DTYPE:MAJOR ...` prints one JSON document, which `test_graphs`
reads.
"""

from __future__ import annotations

import json
import sys
import warnings

warnings.filterwarnings("ignore")

import paddle  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.static import InputSpec  # noqa: E402

from convert.mappings import paddle_config  # noqa: E402
from convert.quant_layout import packing_obstacle  # noqa: E402
from paddle_internvl.engine.paged_kv_cache import PagedKVCache  # noqa: E402
from paddle_internvl.modeling import InternVLChatModel  # noqa: E402
from paddle_internvl.ops.quantized_linear import QuantizedLinear  # noqa: E402
from tests.gpu import graph, pretending  # noqa: E402
from tests.random_checkpoints import tiny_config  # noqa: E402

HEAD = 16  # width of a vision head: that of the tiny configs, 12, is one that flash attention does not take
B, L, PAST, TILES = 2, 9, 7, 2


def network(case: str, dtype: str) -> InternVLChatModel:
    """A random network of a tiny config, a little wider: with vision heads that flash attention takes, and linear
    layers that the kernels for few bits take."""
    config = tiny_config(case)
    vision, language = config["vision_config"], config["llm_config"]
    vision["hidden_size"] = HEAD * vision["num_attention_heads"]
    language["hidden_size"] = (16 if "phi3" in case else 64) * language["num_attention_heads"]
    language["intermediate_size"] = 128
    model = InternVLChatModel(InternVLChatModel.config_class.from_dict(paddle_config(config)))
    model.img_context_token_id = 7
    model.to(dtype=dtype)
    return model


def given(shape, dtype) -> InputSpec:
    """An input that needs no gradient."""
    return InputSpec(shape, dtype, stop_gradient=True)


class Part(nn.Layer):
    """A network, and what is captured of it. Paddle captures a layer's `forward`: see `part`."""

    def __init__(self, model: InternVLChatModel):
        super().__init__()
        self.model = model

    def see(self, pixel_values):
        return self.model.extract_feature(pixel_values)

    def read(self, embeds, positions):
        decoder = self.model.language_model
        cache = decoder.new_cache(B, L)
        return decoder(inputs_embeds=embeds, position_ids=positions, cache=cache, last_only=True)

    def read_padded(self, embeds, mask):
        return self.model.language_model(inputs_embeds=embeds, attention_mask=mask)

    def speak(self, ids, positions):
        decoder = self.model.language_model
        cache = decoder.new_cache(B, PAST + 1)
        cache.advance(PAST)
        return decoder(input_ids=ids, position_ids=positions, cache=cache)

    def speak_paged(self, ids, positions):
        decoder = self.model.language_model
        cache = PagedKVCache(decoder, 4)
        rows = cache.rows([[0, 1], [2]], [17, 3], 1)
        return decoder(input_ids=ids, position_ids=positions, cache=rows)

    def read_paged(self, embeds, positions):
        decoder = self.model.language_model
        cache = PagedKVCache(decoder, 4)
        rows = cache.rows([[0, 1]], [PAST], L)
        return decoder(inputs_embeds=embeds, position_ids=positions, cache=rows)

    def whole(self, pixel_values, ids, mask, flags, labels):
        return self.model(pixel_values, ids, mask, image_flags=flags, labels=labels, return_dict=False)

    def learn(self, pixel_values, ids, mask, flags, labels):
        return self.whole(pixel_values, ids, mask, flags, labels)[0]


def part(model, name: str) -> Part:
    """The layer whose `forward` is the method `name`."""
    return type(name, (Part,), {"forward": getattr(Part, name)})(model)


def parts(model) -> dict[str, tuple[str, list[InputSpec]]]:
    """name -> (method of `Part`, its inputs)."""
    config = model.config
    side, width = config.force_image_size, config.llm_config.hidden_size
    dtype = str(model.get_input_embeddings().weight.dtype).removeprefix("paddle.")
    pixels = given([TILES, 3, side, side], "float32")
    embeds, ids, one = given([B, L, width], dtype), given([B, L], "int64"), given([B, 1], "int64")
    batch = [pixels, ids, given([B, L], "int64"), given([TILES], "int64"), given([B, L], "int64")]
    return {
        "vision": ("see", [pixels]),
        "prefill": ("read", [embeds, ids]),
        "padded prefill": ("read_padded", [embeds, given([B, L], "int64")]),
        "prefill behind a prefix": ("read_paged", [given([1, L, width], dtype), given([1, L], "int64")]),
        "decode": ("speak", [one, one]),
        "paged decode": ("speak_paged", [one, one]),
        "whole": ("whole", batch),
        "training": ("learn", batch),
    }


def quantise(model, bits: int, dtype: str) -> None:
    """Put layers of few bits, as they lie on a card, in the place of the decoder blocks' linear layers."""
    for layer in model.language_model.model.layers:
        for holder in (layer.self_attn, layer.mlp):
            for name, linear in list(holder.named_children()):
                k, n = linear.weight.shape
                assert not packing_obstacle(k, n, bits, -1), packing_obstacle(k, n, bits, -1)
                few = QuantizedLinear(k, n, bits, -1, bias=linear.bias is not None)
                few.bias, few.implementation = linear.bias, "kernel"
                few.quant_weight = paddle.zeros([n * bits // 8, k], "int8")
                few.quant_scale = paddle.zeros([n], dtype)
                setattr(holder, name, few)


def graphs(case: str, dtype: str, capability: tuple[int, int]) -> dict[str, graph.Graph]:
    """Every part's program."""
    made = {}
    with pretending.card(capability):
        model = network(case, dtype)
        for name, (method, inputs) in parts(model).items():
            training = name == "training"
            model.train() if training else model.eval()
            for parameter in model.parameters():
                parameter.stop_gradient = not training
            made[name] = graph.build(part(model, method), *inputs, backward=training)
        model.eval()
        for bits in (8, 4):
            few = network(case, dtype)
            quantise(few.eval(), bits, dtype)
            for parameter in few.parameters():
                parameter.stop_gradient = True
            method, inputs = parts(few)["decode"]
            made[f"decode in {bits} bits"] = graph.build(part(few, method), *inputs)
    return made


def document(case: str, dtype: str, capability: tuple[int, int]) -> dict:
    """What `graphs` has found, as JSON."""
    return {
        name: {
            "faults": made.faults(dtype),
            "casts": [[*kind, count] for kind, count in sorted(made.casts().items())],
            "count": made.count(),
            "kernels": sorted(made.kernels()),
            "outputs": made.outputs,
        }
        for name, made in graphs(case, dtype, capability).items()
    }


def main(wanted: list[str]) -> None:
    """Print what was asked for, 'case:dtype:major' -> document."""
    asked = {name: name.split(":") for name in wanted}
    print(json.dumps({name: document(case, dtype, (int(major), 0)) for name, (case, dtype, major) in asked.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
