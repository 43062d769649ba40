"""Two lives of a model: plain and trainable, or prepared for inference with fixed weights and caches."""

import copy

import numpy as np
import paddle
import pytest
from paddlenlp.peft import LoRAConfig, LoRAModel
from paddlenlp.transformers import AutoModel
from PIL import Image

from paddle_internvl.chat.messages import answer_messages
from paddle_internvl.checkpoints.preparation import prepare_for_inference
from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.models.pretrained import WeightsChangedError
from tests.random_checkpoints import random_pixels

GREEDY = {"max_new_tokens": 8}
TARGETS = [".*language_model.*q_proj.*", ".*language_model.*v_proj.*", "mlp1.1"]


@pytest.fixture
def folder(hf_folders):
    return str(hf_folders["qwen2"])


@pytest.fixture
def plain(folder):
    return AutoModel.from_pretrained(folder, trainable=True)


@pytest.fixture
def prepared(folder):
    return AutoModel.from_pretrained(folder)


def batch(model):
    """A picture and labels, as a training step has them."""
    ids = [1, *[model.img_context_token_id] * model.num_image_token, 9, 10, 11, 12]
    labels = [-100] * (len(ids) - 3) + ids[-3:]
    pixels = paddle.to_tensor(random_pixels(1, model.config.tile_side))
    return {"pixel_values": pixels, "input_ids": paddle.to_tensor([ids]), "labels": paddle.to_tensor([labels])}


def step(wrapper, model, rate=0.05):
    """One AdamW step on whatever the wrapper trains; returns the loss before it."""
    parameters = [parameter for parameter in wrapper.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.AdamW(rate, parameters=parameters)
    wrapper.train()
    loss = wrapper(**batch(model), return_dict=True).loss
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    wrapper.eval()
    return float(loss)


def answer(model, tokenizer):
    pixels = paddle.to_tensor(random_pixels(1, model.config.tile_side))
    return model.chat(tokenizer, pixels, "What is it?", GREEDY)


def test_a_plain_model_has_ordinary_parameters(plain, prepared):
    assert {str(parameter.dtype) for parameter in plain.parameters()} == {"paddle.float32"}
    assert not any(parameter.stop_gradient for parameter in plain.parameters())
    assert not plain.is_prepared and plain.feature_cache.max_bytes == 0
    assert prepared.is_prepared and all(parameter.stop_gradient for parameter in prepared.parameters())
    for (name, ours), theirs in zip(plain.named_parameters(), prepared.parameters()):
        np.testing.assert_array_equal(ours.numpy(), theirs.astype("float32").numpy(), err_msg=name)


def test_a_plain_model_answers_as_a_prepared_one(plain, prepared, tokenizer):
    assert answer(plain, tokenizer) == answer(prepared, tokenizer)


def test_modes_return_the_model(plain, prepared):
    assert plain.train() is plain and plain.training and plain.language_model.training
    assert plain.train(False) is plain and not plain.training
    assert plain.eval() is plain
    assert prepared.train(False) is prepared and prepared.eval() is prepared
    assert plain.vision_model.train() is plain.vision_model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.language_model.train(),
        lambda model: model.vision_model.train(True),
        lambda model: model.to(dtype="float64"),
        lambda model: model.set_state_dict(model.state_dict()),
    ],
)
def test_a_prepared_model_refuses_to_change(prepared, change):
    with pytest.raises(ValueError, match=r"prepared for inference and can't be .* trainable=True"):
        change(prepared)


def test_moving_a_prepared_model_where_it_is_does_nothing(prepared):
    assert prepared.to(device="cpu") is prepared


def test_preparing_twice_is_an_error(prepared):
    with pytest.raises(ValueError, match="prepared for inference already"):
        prepare_for_inference(prepared)


def test_a_copy_of_a_plain_model_is_trainable(plain):
    twin = copy.deepcopy(plain)
    twin.language_model.lm_head.weight.set_value(twin.language_model.lm_head.weight * 2)
    assert not np.array_equal(twin.language_model.lm_head.weight.numpy(), plain.language_model.lm_head.weight.numpy())


def moved(model):
    weight = model.language_model.model.layers[0].mlp.gate_proj.weight
    (weight * 3)._share_buffer_to(weight)


def written(model):
    weight = model.language_model.model.layers[1].self_attn.o_proj.weight
    weight.set_value(weight.astype("float32").numpy()[::-1].astype(weight.numpy().dtype))


def scaled(model):
    with paddle.no_grad():
        model.mlp1[0].weight.scale_(2.0)


def replaced_parameter(model):
    gate = model.language_model.model.layers[0].mlp.gate_proj
    gate.weight = paddle.create_parameter(gate.weight.shape, "float32")


def replaced_layer(model):
    mlp = model.language_model.model.layers[1].mlp
    mlp.up_proj = paddle.nn.Linear(*mlp.up_proj.weight.shape, bias_attr=False)


def wrapped(model):
    LoRAModel(model, LoRAConfig(target_modules=TARGETS, r=2, lora_alpha=4))


CHANGES = [moved, written, scaled, replaced_parameter, replaced_layer, wrapped]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_weight_is_noticed(folder, tokenizer, change):
    """Before an answer of old and new weights, old visual tokens or old KV prefixes is made."""
    model = AutoModel.from_pretrained(folder, dtype="float32")
    answer(model, tokenizer)
    change(model)
    with pytest.raises(WeightsChangedError, match="load.*trainable=True"):
        answer(model, tokenizer)


def test_training_with_paddlenlps_lora(plain, folder, tokenizer):
    """PaddleNLP's LoRAModel wraps, runs and trains a plain model on a CPU; merged, it is a plain model again."""
    before = answer(plain, tokenizer)
    frozen = plain.language_model.model.layers[0].mlp.up_proj.weight.numpy()
    lora = LoRAModel(plain, LoRAConfig(target_modules=TARGETS, r=4, lora_alpha=8))
    lora.mark_only_lora_as_trainable()
    losses = [step(lora, plain) for _ in range(4)]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(plain.language_model.model.layers[0].mlp.up_proj.weight.numpy(), frozen)
    trained = answer(plain, tokenizer)
    lora.merge()
    merged = lora.restore_original_model()
    assert answer(merged, tokenizer) == trained != before
    assert answer(prepare_for_inference(merged), tokenizer) == trained


def test_training_under_data_parallel(plain):
    wrapper = paddle.DataParallel(plain, find_unused_parameters=True)
    losses = [step(wrapper, plain, 0.01) for _ in range(3)]
    assert losses[-1] < losses[0]


def test_answers_are_those_of_the_new_weights(plain, folder, tokenizer):
    """A step through a wrapper, which calls no method of the model: no visual token and no KV prefix is an old one."""
    picture = {"type": "image", "image": Image.effect_noise((56, 56), 60)}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "What is it? " * 9}]}]
    started = []

    def start(model):
        started.append(EngineThread(engine_of(model, tokenizer, EngineConfig(max_batch_size=1, session_len=512))))
        started[-1].start()
        return started[-1]

    def ask(model, engine=None):
        (response,) = answer_messages(model, tokenizer, [messages], GREEDY, engine=engine, context_length=512)
        return response.token_ids

    engine = start(plain)
    before = ask(plain, engine)
    step(paddle.DataParallel(plain, find_unused_parameters=True), plain)
    after = ask(plain, engine)
    fresh = AutoModel.from_pretrained(folder, trainable=True)
    fresh.set_state_dict(plain.state_dict())
    assert after == ask(prepare_for_inference(fresh)) != before
    assert engine.stats().reused_tokens == 0
    again = start(fresh)
    assert ask(fresh, again) == ask(fresh, again) == after and again.stats().reused_tokens > 0
    for thread in started:
        thread.close()


def test_a_model_from_a_config_is_plain_and_initialised(plain):
    """As upstream: normal weights of `initializer_range` in the decoder, PyTorch's own elsewhere, zero biases."""
    paddle.seed(3)
    model = InternVLChatModel(plain.config)
    assert not model.is_prepared
    decoder, spread = model.language_model, plain.config.llm_config.initializer_range
    for weight in (
        decoder.lm_head.weight,
        decoder.model.embed_tokens.weight,
        decoder.model.layers[0].mlp.up_proj.weight,
    ):
        assert float(weight.std()) == pytest.approx(spread, rel=0.1) and abs(float(weight.mean())) < spread / 5
    assert not decoder.model.layers[0].self_attn.q_proj.bias.any()
    assert float(model.vision_model.embeddings.position_embedding.std()) == pytest.approx(1, rel=0.1)
    fc1 = model.vision_model.encoder.layers[0].mlp.fc1
    bound = fc1.weight.shape[0] ** -0.5
    assert 0.9 * bound < float(fc1.weight.abs().max()) <= bound and 0 < float(fc1.bias.abs().max()) <= bound


def test_recomputed_layers_give_the_same_gradients(plain):
    gradients = []
    for recomputes in (False, True):
        plain.language_model.model.enable_recompute = plain.vision_model.encoder.enable_recompute = recomputes
        plain.train()
        plain(**batch(plain)).loss.backward()
        gradients.append({n: p.grad.numpy() for n, p in plain.named_parameters() if p.grad is not None})
        plain.clear_gradients()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_trainable_model_is_on_one_device(folder):
    with pytest.raises(ValueError, match="trainable=True loads a whole model on one device"):
        AutoModel.from_pretrained(folder, device_map="auto", trainable=True)


def test_hooks_survive_preparation(plain, tokenizer):
    """Whether they were registered before or after it; a hooked layer runs as modules."""
    doubled = {"count": 0}

    def hook(_layer, _inputs, output):
        doubled["count"] += 1
        return output * 2

    plain.language_model.model.layers[0].self_attn.o_proj.register_forward_post_hook(hook)
    before = answer(plain, tokenizer)
    counted = doubled["count"]
    assert answer(prepare_for_inference(plain), tokenizer) == before and doubled["count"] == 2 * counted > 0


def test_a_replaced_forward_is_called(prepared, tokenizer):
    """As tools do that patch a layer; a native call would skip it."""
    before = answer(prepared, tokenizer)
    attention = prepared.language_model.model.layers[0].self_attn
    original, calls = attention.forward, []
    attention.forward = lambda *inputs: calls.append(len(inputs)) or original(*inputs)
    assert answer(prepared, tokenizer) == before and calls
