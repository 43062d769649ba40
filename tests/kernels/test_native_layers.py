"""Native layers of a model prepared for inference against the plain model, module by module, without kernels."""

import copy
import gc
import weakref

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.checkpoints.preparation import prepare_for_inference
from paddle_internvl.configuration import DecoderConfig
from paddle_internvl.engine.paged_kv_cache import PagedKVCache
from paddle_internvl.models.decoder import DecoderForCausalLM, count_positions
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.native_layers import UnsupportedLayerError, native_decoder_layer
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.verification import capture
from tests.families import NATIVE
from tests.random_checkpoints import random_pixels

REFERENCE = dict.fromkeys(("attention", "rope", "swiglu", "gelu", "rms_norm", "layer_norm"), "reference")
REFERENCE["experts"] = "grouped"
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module", params=NATIVE)
def pair(request, hf_folders):
    """The plain model of a case, and the same prepared for inference."""
    folder = str(hf_folders[request.param])
    return AutoModel.from_pretrained(folder, trainable=True), AutoModel.from_pretrained(folder)


@pytest.fixture
def qwen2(hf_folders):
    return AutoModel.from_pretrained(str(hf_folders["qwen2"]))


def assert_close(pair, work):
    """work(model) gives the same tensors for the plain model without kernels and for the prepared one."""
    plain, prepared = pair
    with dispatch.force(**REFERENCE):
        expected = work(plain)
    for reference, native in zip(expected, work(prepared)):
        np.testing.assert_allclose(native.numpy(), reference.numpy(), **CLOSE)


def ids(seed: int, *shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).integers(3, 900, shape))


def test_the_native_layers_are_there(pair):
    plain, prepared = pair
    assert plain.language_model.model.native is None
    assert prepared.language_model.model.native is not None
    assert all(layer.native is not None for layer in prepared.vision_model.encoder.layers)


def test_vision_tower(isa, pair):
    pixels = paddle.to_tensor(random_pixels(3, pair[0].config.vision_config.image_size))
    assert_close(pair, lambda model: list(model.vision_model.hidden_states(pixels, -1)))


@pytest.mark.parametrize("tiles", [1, 3])
def test_projector(isa, pair, tiles):
    config = pair[0].config
    shape = [tiles, 1 + config.tile_sizes.patches, config.vision_config.hidden_size]
    hidden = paddle.to_tensor(np.random.default_rng(tiles).standard_normal(shape, np.float32))
    assert_close(pair, lambda model: [model.project(hidden)])
    assert pair[1].native_projector is not None


def test_hooks_of_the_projector_are_called(hf_folders):
    model = AutoModel.from_pretrained(str(hf_folders["qwen2"]))
    seen = []
    model.mlp1.register_forward_post_hook(lambda layer, inputs, output: seen.append(output))
    config = model.config
    tokens = model.project(paddle.zeros([1, 1 + config.tile_sizes.patches, config.vision_config.hidden_size]))
    assert len(seen) == 1 and (seen[0] == tokens).all()


@pytest.mark.parametrize("length", [1, 3, 6, 33])
def test_prompts_without_a_cache(isa, pair, length):
    assert_close(pair, lambda model: [model.language_model(input_ids=ids(0, 2, length))])


@pytest.mark.parametrize("batch", [1, 3])
def test_prompt_then_steps(isa, pair, batch):
    """With padding on the left, in a cache, past windows and the length that dynamic rope was trained for."""
    length = 21
    mask = paddle.to_tensor(np.arange(length) >= np.arange(batch)[:, None] * 4)

    def work(model):
        decoder = model.language_model
        cache, seen, made = decoder.new_cache(batch, length + 9), mask, []
        positions = count_positions(mask, batch, length)
        made.append(decoder(ids(0, batch, length), None, mask, positions, cache, last_only=True))
        for step, count in enumerate((1, 1, 2, 5)):
            seen = paddle.concat([seen, paddle.ones([batch, count], "bool")], axis=1)
            positions = positions[:, -1:] + 1 + paddle.arange(count)
            made.append(decoder(ids(step, batch, count), None, seen, positions, cache))
        return made

    assert_close(pair, work)


def test_only_the_last_position(isa, pair):
    prompt = ids(0, 2, 30)
    plain, prepared = (model.language_model for model in pair)
    whole = plain(prompt)
    last = prepared(prompt, cache=prepared.new_cache(2, 30), last_only=True)
    np.testing.assert_allclose(last.numpy(), whole[:, -1:].numpy(), **CLOSE)


def test_blocks_of_a_cache(isa, pair):
    """A prompt in two pieces, then steps of rows of different lengths, in blocks of memory in any order."""

    def work(model):
        decoder = model.language_model
        cache, made = PagedKVCache(decoder, 12), []
        for memory in (*cache.keys, *cache.values):
            memory[:] = 1e3  # of a row that was here before
        tables, lengths = [[7, 2, 11], [5], [0, 9]], [33, 9, 17]
        for table, length in zip(tables, lengths):
            for start, end in ((0, length // 2), (length // 2, length)):
                rows = cache.rows([table], [start], end - start)
                x = model.get_input_embeddings()(ids(length, 1, length)[:, start:end])
                positions = paddle.arange(start, end).unsqueeze(0)
                made.append(decoder.model(x, positions, None, rows, length, last_only=True))
        for step in range(3):
            rows = cache.rows(tables, lengths, 1)
            positions = paddle.to_tensor(lengths).unsqueeze(-1)
            made.append(decoder(ids(step, 3, 1), position_ids=positions, cache=rows))
            lengths = [n + 1 for n in lengths]
        return made

    assert_close(pair, work)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights(isa, hf_folders, bits):
    model = AutoModel.from_pretrained(str(hf_folders["llama"]), load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    plain = AutoModel.from_pretrained(str(hf_folders["llama"]), trainable=True)
    quantized = {name: layer for name, layer in model.named_sublayers() if type(layer) is QuantizedLinear}
    assert quantized and all(layer.implementation == "native" for layer in quantized.values())
    for name, layer in plain.named_sublayers():
        if name in quantized:
            layer.weight.set_value(quantized[name].dequantized())
    prompt = ids(0, 1, 20)
    assert_close((plain, model), lambda m: [m.language_model(prompt), m.language_model(prompt[:, :1])])


def test_hooks_are_run(isa, qwen2):
    """A layer with a hook inside runs as modules; with a hook on itself it is still one native call."""
    decoder, prompt, seen = qwen2.language_model, ids(0, 1, 5), []
    layer, expected = decoder.model.layers[1], decoder(ids(0, 1, 5))
    hook = layer.mlp.down_proj.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(1) or output * 2)
    doubled = decoder(prompt)
    assert seen and not np.allclose(doubled.numpy(), expected.numpy())
    hook.remove()
    np.testing.assert_array_equal(decoder(prompt).numpy(), expected.numpy())
    hook = layer.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(2))
    np.testing.assert_allclose(decoder(prompt).numpy(), expected.numpy(), **CLOSE)
    assert seen[-1] == 2
    hook.remove()


def test_a_field_that_the_kernels_do_not_know_is_refused(isa, hf_folders):
    """A new family runs on its modules from the first day; a native layer never ignores what it can't do."""

    class Capped(DecoderConfig):
        def __init__(self, logit_cap: float = 0.0, **fields):
            super().__init__(**fields)
            self.logit_cap = logit_cap

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "num_hidden_layers": 2,
             "vocab_size": 50, "architectures": ["Qwen2ForCausalLM"]}  # fmt: skip
    decoders = [prepare_for_inference(DecoderForCausalLM(Capped(cap, **sizes))) for cap in (0.0, 30.0)]
    assert [decoder.model.native is not None for decoder in decoders] == [True, False]
    with pytest.raises(UnsupportedLayerError, match="don't implement logit_cap=30.0"):
        native_decoder_layer(decoders[1].model.layers[0], decoders[1].config)
    assert decoders[1](ids(0, 1, 5) % 50).shape == [1, 5, 50]


def test_a_tensor_that_the_kernels_do_not_know_is_refused(isa, qwen2):
    layer = qwen2.language_model.model.layers[0]
    layer.self_attn.q_norm = paddle.nn.LayerNorm(8)
    with pytest.raises(UnsupportedLayerError, match="self_attn.q_norm.weight"):
        native_decoder_layer(layer, qwen2.config.llm_config)
    layer.self_attn.o_proj = paddle.nn.Sequential(layer.self_attn.o_proj)
    with pytest.raises((UnsupportedLayerError, AttributeError)):
        native_decoder_layer(layer, qwen2.config.llm_config)


def test_stages_see_every_layer(isa, qwen2):
    with capture.capture(qwen2) as seen:
        qwen2.language_model(ids(0, 1, 5))
    count = qwen2.config.llm_config.num_hidden_layers
    assert [f"dec.block.{i}" in seen for i in range(count)] == [True] * count


def test_a_model_can_be_let_go(isa, hf_folders):
    model = AutoModel.from_pretrained(str(hf_folders["qwen2"]))
    model.language_model(ids(0, 1, 5))
    layer = weakref.ref(model.language_model.model.layers[0])
    del model
    gc.collect()
    assert layer() is None


def test_a_copy_is_refused(isa, qwen2):
    """Its C structs would point at the original's weights."""
    with pytest.raises(TypeError, match="prepared for inference can't be copied"):
        copy.deepcopy(qwen2)


def test_a_full_cache_is_an_error(isa, qwen2):
    decoder = qwen2.language_model
    with pytest.raises(ValueError, match="holds 4 positions, and 5 are needed"):
        decoder(ids(0, 1, 5), cache=decoder.new_cache(1, 4))


def test_without_kernels_the_modules_run(hf_folders, monkeypatch):
    monkeypatch.setattr(dispatch, "this_machine", lambda: dispatch.Machine((0, 0), "no compiler", frozenset()))
    model = AutoModel.from_pretrained(str(hf_folders["qwen2"]))
    decoder = model.language_model
    assert decoder.model.native is None and decoder.lm_head.weight.dtype == paddle.float32
    assert decoder(ids(0, 1, 5), cache=decoder.new_cache(1, 5)).shape == [1, 5, decoder.config.vocab_size]
