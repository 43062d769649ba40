"""Whole layers in one native call against their own forwards, module by module, in forms that have no kernels."""

import copy
import gc
import weakref

import numpy as np
import paddle
import pytest

from paddle_internvl.engine.paged_kv_cache import PagedKVCache
from paddle_internvl.kernels import library
from paddle_internvl.models.decoder import count_positions
from paddle_internvl.ops import dispatch, native_layers
from paddle_internvl.verification import capture
from tests.random_checkpoints import CASES, random_pixels

PLAIN = {"decoder_layer": "modules", "vision_layer": "modules", "attention": "plain", "rope": "plain",
         "swiglu": "plain", "gelu": "plain", "rms_norm": "plain", "linear": "plain"}  # fmt: skip
NATIVE = {"decoder_layer": "native", "vision_layer": "native"}
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def both(work):
    """What work() returns by the plain forms, and by whole layers."""
    results = []
    for names in (PLAIN, NATIVE):
        with dispatch.use_forms(**names):
            results.append(work())
    return results


def assert_close(work):
    for plain, native in zip(*both(work)):
        np.testing.assert_allclose(native.numpy(), plain.numpy(), **CLOSE)


@pytest.fixture(params=CASES)
def model(request, models):
    return models[request.param]


def ids(seed: int, *shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).integers(3, 900, shape))


def test_vision_tower(isa, model):
    pixels = paddle.to_tensor(random_pixels(3, model.config.vision_config.image_size))
    assert_close(lambda: list(model.vision_model.hidden_states(pixels, -1)))


@pytest.mark.parametrize("length", [1, 3, 6, 33])
def test_prompts_without_a_cache(isa, model, length):
    assert_close(lambda: [model.language_model(input_ids=ids(0, 2, length))])


@pytest.mark.parametrize("batch", [1, 3])
def test_prompt_then_steps(isa, model, batch):
    """With padding on the left, in a cache, past windows and the length that dynamic rope was trained for."""
    decoder, length = model.language_model, 21
    mask = paddle.to_tensor(np.arange(length) >= np.arange(batch)[:, None] * 4)

    def work():
        cache, seen, made = decoder.new_cache(batch, length + 9), mask, []
        positions = count_positions(mask, batch, length)
        made.append(decoder(ids(0, batch, length), None, mask, positions, cache, last_only=True))
        for step, count in enumerate((1, 1, 2, 5)):
            seen = paddle.concat([seen, paddle.ones([batch, count], "bool")], axis=1)
            positions = positions[:, -1:] + 1 + paddle.arange(count)
            made.append(decoder(ids(step, batch, count), None, seen, positions, cache))
        return made

    assert_close(work)


def test_only_the_last_position(isa, model):
    decoder, prompt = model.language_model, ids(0, 2, 30)
    whole = decoder(prompt)
    for names in (PLAIN, NATIVE):
        with dispatch.use_forms(**names):
            last = decoder(prompt, cache=decoder.new_cache(2, 30), last_only=True)
        np.testing.assert_allclose(last.numpy(), whole[:, -1:].numpy(), **CLOSE)


def test_blocks_of_a_cache(isa, model):
    """A prompt in two pieces, then steps of rows of different lengths, in blocks of memory in any order."""
    decoder = model.language_model

    def work():
        cache, made = PagedKVCache(decoder, 12), []
        for memory in (*cache.keys, *cache.values):
            memory[:] = 1e3  # of a row that was here before
        tables, lengths = [[7, 2, 11], [5], [0, 9]], [33, 9, 17]
        for table, length in zip(tables, lengths):
            for start, end in ((0, length // 2), (length // 2, length)):
                rows = cache.rows([table], [start], end - start)
                x = model.get_input_embeddings()(ids(length, 1, length)[:, start:end])
                made.append(
                    decoder.model(x, paddle.arange(start, end).unsqueeze(0), None, rows, length, last_only=True)
                )
        for step in range(3):
            rows = cache.rows(tables, lengths, 1)
            positions = paddle.to_tensor(lengths).unsqueeze(-1)
            made.append(decoder(ids(step, 3, 1), position_ids=positions, cache=rows))
            lengths = [n + 1 for n in lengths]
        return made

    plain, native = both(work)
    for expected, found in zip(plain[6:], native[6:]):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), **CLOSE)
    for expected, found in zip(plain[:6], native[:6]):
        np.testing.assert_allclose(found[:, -1].numpy(), expected[:, -1].numpy(), **CLOSE)


def test_weights_of_16_bits(isa, models):
    """bfloat16 weights give what their exact floats give."""
    model = copy.deepcopy(models["qwen2"])
    for part in model.sublayers():
        if isinstance(part, paddle.nn.Linear):
            part.weight.astype("bfloat16")._share_buffer_to(part.weight)
    prompt, pixels = ids(0, 1, 20), paddle.to_tensor(random_pixels(1, model.config.vision_config.image_size))
    assert model.vision_model.encoder.layers[0].mlp.fc1.weight.dtype == paddle.bfloat16
    assert_close(lambda: [model.language_model(prompt), model.language_model(prompt[:, :1])])
    assert_close(lambda: list(model.vision_model.hidden_states(pixels, -1)))


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_few_bits(isa, hf_folders, bits):
    from paddlenlp.transformers import AutoModel

    model = AutoModel.from_pretrained(str(hf_folders["llama"]), load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    few = [part for part in model.sublayers() if type(part) is native_layers.QuantizedLinear]
    assert few and all(part.form != "kernel" for part in few)
    prompt = ids(0, 1, 20)
    with dispatch.use_forms(**PLAIN, weight_only="plain"):
        expected = [model.language_model(prompt), model.language_model(prompt[:, :1])]
    with dispatch.use_forms(**NATIVE):
        found = [model.language_model(prompt), model.language_model(prompt[:, :1])]
    for plain, native in zip(expected, found):
        np.testing.assert_allclose(native.numpy(), plain.numpy(), **CLOSE)


def test_what_a_kernel_can_not_do_is_done_by_modules(isa, models):
    """And said, where the native form is asked for by name."""
    model = copy.deepcopy(models["qwen2"])
    layer, prompt = model.language_model.model.layers[1], ids(0, 1, 5)
    expected, seen = model.language_model(prompt), []
    hook = layer.mlp.down_proj.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(1) or output * 2)
    doubled = model.language_model(prompt)
    assert seen and not np.allclose(doubled.numpy(), expected.numpy())
    with dispatch.use_forms(decoder_layer="native"), pytest.raises(ValueError, match="a layer within it has hooks"):
        model.language_model(prompt)
    hook.remove()
    np.testing.assert_array_equal(model.language_model(prompt).numpy(), expected.numpy())
    model.train()
    with dispatch.use_forms(decoder_layer="native"), pytest.raises(ValueError, match="it is being trained"):
        model.language_model(prompt)
    with paddle.enable_grad():
        model.language_model(prompt).sum().backward()
    assert layer.mlp.down_proj.weight.grad is not None


class Adapted(paddle.nn.Layer):
    """Stands for whatever others put in the place of a linear layer."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 2


def test_layers_that_others_put_in_are_called(isa, models):
    model = copy.deepcopy(models["qwen2"])
    prompt = ids(0, 1, 5)
    expected = model.language_model(prompt)
    for layer in model.language_model.model.layers:
        layer.self_attn.o_proj = Adapted(layer.self_attn.o_proj)
    assert not np.allclose(model.language_model(prompt).numpy(), expected.numpy())
    with dispatch.use_forms(decoder_layer="native"), pytest.raises(ValueError, match="it holds a Adapted"):
        model.language_model(prompt)


def test_weights_that_move_are_followed(isa, models):
    model = copy.deepcopy(models["qwen2"])
    prompt, layer = ids(0, 1, 5), model.language_model.model.layers[0]
    before = model.language_model(prompt)
    gate = layer.mlp.gate_proj
    (gate.weight * 3)._share_buffer_to(gate.weight)  # the same parameter in other memory
    moved = model.language_model(prompt)
    layer.mlp.gate_proj = type(gate)(*gate.weight.shape, bias_attr=False)  # another layer
    layer.mlp.gate_proj.weight.set_value(gate.weight / 3)
    assert not np.allclose(moved.numpy(), before.numpy())
    np.testing.assert_allclose(model.language_model(prompt).numpy(), before.numpy(), **CLOSE)
    layer.mlp.gate_proj.weight = paddle.create_parameter(gate.weight.shape, "float32")  # another parameter
    layer.mlp.gate_proj.weight.set_value(gate.weight)
    np.testing.assert_allclose(model.language_model(prompt).numpy(), moved.numpy(), **CLOSE)


def test_stages_see_every_layer(isa, models):
    model = models["qwen2"]
    with capture.capture(model) as seen:
        model.language_model(ids(0, 1, 5))
    count = model.config.llm_config.num_hidden_layers
    assert [f"dec.block.{i}" in seen for i in range(count)] == [True] * count


def test_a_model_can_be_let_go(isa, models):
    model = copy.deepcopy(models["qwen2"].language_model)
    model(ids(0, 1, 5))
    layer = weakref.ref(model.model.layers[0])
    del model
    gc.collect()
    assert layer() is None


def test_a_full_cache_is_an_error(isa, models):
    decoder = models["qwen2"].language_model
    with pytest.raises(ValueError, match="holds 4 positions, and 5 are needed"):
        decoder(ids(0, 1, 5), cache=decoder.new_cache(1, 4))


def test_without_kernels_the_modules_run(models, monkeypatch):
    monkeypatch.setattr(library, "unavailable_reason", lambda: "there is no compiler")
    monkeypatch.setattr(dispatch, "_form", dispatch._form.__wrapped__)
    monkeypatch.setattr(library, "run", lambda *_: pytest.fail("a kernel was called"))
    monkeypatch.setattr(native_layers.kernels, "run_decoder_layers", lambda *_: pytest.fail("a kernel was called"))
    decoder = models["qwen2"].language_model
    with paddle.no_grad():
        assert decoder(ids(0, 1, 5), cache=decoder.new_cache(1, 5)).shape == [1, 5, decoder.config.vocab_size]
