"""Layer placement on fake cards: the model cards' own `split_model`, and every copy between devices recorded."""

import json
import math
import re

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

import paddle_internvl
from paddle_internvl import runtime
from paddle_internvl.ops import devices, dispatch
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.parallel.placement import Placement, choose_placement, split_model
from tests.families import quantizable_config
from tests.random_checkpoints import ROOT, random_checkpoint, random_pixels, tiny_config

MEMBERS = sorted((ROOT / "configs").glob("internvl*.json"))


def upstream_split_model(num_layers: int, world_size: int) -> dict:
    """`split_model` of the model cards, with its lookups replaced by arguments."""
    device_map = {}
    # Since the first GPU will be used for ViT, treat it as half a GPU.
    num_layers_per_gpu = math.ceil(num_layers / (world_size - 0.5))
    num_layers_per_gpu = [num_layers_per_gpu] * world_size
    num_layers_per_gpu[0] = math.ceil(num_layers_per_gpu[0] * 0.5)
    layer_cnt = 0
    for i, num_layer in enumerate(num_layers_per_gpu):
        for _ in range(num_layer):
            device_map[f"language_model.model.layers.{layer_cnt}"] = i
            layer_cnt += 1
    device_map["vision_model"] = 0
    device_map["mlp1"] = 0
    device_map["language_model.model.tok_embeddings"] = 0
    device_map["language_model.model.embed_tokens"] = 0
    device_map["language_model.output"] = 0
    device_map["language_model.model.norm"] = 0
    device_map["language_model.lm_head"] = 0
    device_map[f"language_model.model.layers.{num_layers - 1}"] = 0
    return device_map


UPSTREAM_LAYERS = {  # the tables of InternVL2's and 2.5's cards; later cards have none
    "internvl2-1b": 24, "internvl2-2b": 24, "internvl2-4b": 32, "internvl2-8b": 32, "internvl2-26b": 48,
    "internvl2-40b": 60, "internvl2-llama3-76b": 80, "internvl2_5-1b": 24, "internvl2_5-2b": 24, "internvl2_5-4b": 36,
    "internvl2_5-8b": 32, "internvl2_5-26b": 48, "internvl2_5-38b": 64, "internvl2_5-78b": 80,
}  # fmt: skip


@pytest.mark.parametrize("file", MEMBERS, ids=lambda file: file.stem)
def test_split_model_is_the_model_cards(file):
    layers = UPSTREAM_LAYERS.get(file.stem, json.loads(file.read_text())["llm_config"]["num_hidden_layers"])
    for cards in range(1, 9):
        theirs = upstream_split_model(layers, cards)
        ours = split_model(file, cards)
        assert ours == {name: card for name, card in theirs.items() if name in ours}
        beyond = {name for name in theirs if name not in ours} - {
            "language_model.model.tok_embeddings", "language_model.output"
        }  # fmt: skip
        assert all(int(re.search(r"\d+$", name)[0]) >= layers for name in beyond)
        assert ours == split_model(json.loads(file.read_text()), cards)


def test_split_model_is_public_and_needs_cards():
    assert paddle_internvl.split_model is split_model
    with pytest.raises(ValueError, match="needs a CUDA card, or a world_size"):
        split_model(tiny_config("llama"), 0)


class FakeCards:
    """Cards that record the current device and the copies between devices; everything runs on the CPU."""

    def __init__(self, monkeypatch, cards: int):
        self.current = "gpu:0"
        monkeypatch.setattr(runtime, "choose_device", lambda device=None: device or "gpu")
        monkeypatch.setattr(runtime, "choose_dtype", lambda dtype, device: ("float32", "for a test"))
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(paddle, "set_device", lambda device: setattr(self, "current", device))
        monkeypatch.setattr(devices, "on", self.on)
        monkeypatch.setattr(devices, "place_of", lambda device: paddle.CPUPlace())
        monkeypatch.setattr(devices, "device_of", lambda tensor: getattr(tensor, "card", None))
        monkeypatch.setattr(devices, "to_device", self.to_device)
        self.copies: list[str] = []

    def on(self, device):
        cards = self

        class Guard:
            def __enter__(self):
                self.before, cards.current = cards.current, device or cards.current

            def __exit__(self, *_):
                cards.current = self.before

        return Guard()

    def to_device(self, value, device):
        if isinstance(value, paddle.Tensor):
            if getattr(value, "card", None) == device:
                return value
            self.copies.append(device)
            value = value.clone()
            value.card = device
            return value
        return value.on_device(device) if hasattr(value, "on_device") else value


TWO = {"vision_model": 0, "mlp1": 0, "language_model": 0, "language_model.model.layers.1": 1}


def load_on_two_cards(monkeypatch, folder, device_map, **options):
    fake = FakeCards(monkeypatch, 2)
    return fake, AutoModel.from_pretrained(str(folder), device_map=device_map, **options)


def logits(model) -> paddle.Tensor:
    """By the layers' modules, which several devices have too: there are no whole layers of a CPU's library on cards."""
    ids = np.random.default_rng(0).integers(3, 1000, (1, 20))
    ids[0, 2 : 2 + 2 * model.num_image_token] = 1002
    with paddle.no_grad(), dispatch.force(layers="modules"):
        return model(paddle.to_tensor(random_pixels(2, model.config.tile_side)), paddle.to_tensor(ids)).logits


def test_every_layer_computes_on_its_device(monkeypatch, hf_folders, models, case):
    """Logits are those of one device, to the bit; weights, inputs and KV caches are on the device of each layer."""
    expected = logits(models[case]).numpy()
    fake, model = load_on_two_cards(monkeypatch, hf_folders[case], TWO)
    places = Placement({name: f"gpu:{card}" for name, card in TWO.items()})
    computed: dict[str, str] = {}
    for name, layer in model.named_sublayers():
        if not layer.sublayers() and list(layer.parameters()):
            layer.register_forward_pre_hook(lambda _, x, name=name: computed.update({name: fake.current}))
    fake.copies.clear()
    ours = logits(model)
    if case in ("qwen3_moe", "biased_v1"):  # kernels of experts, and of biases with a residual, add in another order
        np.testing.assert_allclose(ours.numpy(), expected, atol=2e-5)
    else:
        np.testing.assert_array_equal(ours.numpy(), expected)
    assert ours.card == "gpu:0" and len(computed) > 20 and set(computed.values()) == {"gpu:0", "gpu:1"}
    assert {name: places.device(name) for name in computed} == computed
    assert fake.copies.count("gpu:1") == 3  # hidden states, cosines, sines


def test_kv_caches_are_on_the_devices_of_their_layers(monkeypatch, hf_folders, models, tokenizer):
    made = []
    messages, settings = [{"role": "user", "content": "Hello"}], {"max_new_tokens": 12}
    prompt, beams = paddle.to_tensor([[5, 6, 7]]), {**settings, "num_beams": 3}
    expected = models["llama"].chat_messages(messages, settings).text
    searched = models["llama"].generate(input_ids=prompt, **beams).tolist()
    fake, model = load_on_two_cards(monkeypatch, hf_folders["llama"], TWO)
    for function in ("empty", "zeros"):
        real = getattr(paddle, function)
        monkeypatch.setattr(paddle, function, lambda *a, real=real, **k: made.append(fake.current) or real(*a, **k))
    model.language_model.new_cache(1, 8)
    assert made == ["gpu:0", "gpu:0", "gpu:1", "gpu:1", "gpu:0", "gpu:0"]  # k and v of three layers
    assert model.chat_messages(messages, settings).text == expected
    assert model.generate(input_ids=prompt, **beams).tolist() == searched


def test_the_model_cards_map_and_auto(monkeypatch, hf_folders):
    _, model = load_on_two_cards(monkeypatch, hf_folders["dynamic_gqa"], upstream_split_model(3, 2))
    by_card = model.language_model.layer_devices
    _, auto = load_on_two_cards(monkeypatch, hf_folders["dynamic_gqa"], "auto")
    assert auto.language_model.layer_devices == by_card == ("gpu:0", "gpu:1", "gpu:0")


def test_quantized_weights_on_several_cards(monkeypatch, tmp_path):
    """A fake card is a CPU, so its kernels are too."""
    folder = random_checkpoint(tmp_path / "hf", quantizable_config("llama"))
    expected = logits(AutoModel.from_pretrained(str(folder), load_in_8bit=True)).numpy()
    _, model = load_on_two_cards(monkeypatch, folder, TWO, load_in_8bit=True)
    assert any(isinstance(layer, QuantizedLinear) for layer in model.language_model.model.layers[1].sublayers())
    np.testing.assert_array_equal(logits(model).numpy(), expected)


WHOLE = {"vision_model": 0, "mlp1": 0, "language_model": 1}


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        ({}, "device_map is empty"),
        ({"vision_model": 0, "mlp1": 1}, "has no entry for language_model.model.embed_tokens"),
        ({**WHOLE, "head": 0}, "has 'head', which is no part of the model"),
        (
            {**WHOLE, "language_model.model.layers.0.mlp": 0},
            "splits language_model.model.layers.0: language_model.model.layers.0.mlp is on another device",
        ),
        ({**WHOLE, "mlp1.1.bias": 1}, "splits mlp1: mlp1.1.bias is on another device"),
        ({**WHOLE, "mlp1": 2}, "puts 'mlp1' on gpu:2, but there are 2 cards"),
        ({**WHOLE, "mlp1": "cpu"}, "parts on the CPU beside cards"),
    ],
)
def test_refused_maps(monkeypatch, hf_folders, device_map, message):
    FakeCards(monkeypatch, 2)
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(str(hf_folders["llama"]), device_map=device_map)


def test_a_map_with_one_device(hf_folders):
    for device_map in ("cpu", {"": "cpu"}, {"vision_model": "cpu", "language_model": "cpu"}):
        model = AutoModel.from_pretrained(str(hf_folders["llama"]), device_map=device_map)
        assert model.language_model.layer_devices is None


def test_the_longest_prefix_counts():
    places = Placement({"": "gpu:0", "a.b": "gpu:1", "a.b.c": "gpu:2"})
    assert [places.device(name) for name in ("a", "a.bc", "a.b.d", "a.b.c.weight")] == [
        "gpu:0", "gpu:0", "gpu:1", "gpu:2"
    ]  # fmt: skip
    assert str(places) == "gpu:0, gpu:1, gpu:2" and places.several


@pytest.mark.parametrize(("given", "device"), [(1, "gpu:1"), ("cuda", "gpu:0"), ("cuda:1", "gpu:1"), ("cpu", "cpu")])
def test_spellings_of_a_device(monkeypatch, given, device):
    FakeCards(monkeypatch, 2)
    assert choose_placement(given, None, tiny_config("llama")).home == device
