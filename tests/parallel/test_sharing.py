"""Models shared out between ranks that are threads: equal to the whole, from every layout, float and quantised."""

import json
import threading

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from safetensors.numpy import load_file, save_file

from convert.cli import main as convert_cli
from convert.quant_config import Quantization
from convert.safetensors_io import Checkpoint
from convert.streaming import convert
from paddle_internvl import InternLM2ForCausalLM
from paddle_internvl.checkpoints import loading
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.ops.quantized_linear import QuantizedLinear
from paddle_internvl.parallel.shards import ShardPlan, ShardSpec
from tests.checkpoints.test_quantization import config_of
from tests.checkpoints.test_standalone import part
from tests.parallel.threads import run_ranks
from tests.random_checkpoints import random_checkpoint, random_pixels, tiny_config

LOADING = threading.Lock()


def shared(monkeypatch, folder, size: int, work, cls=InternVLChatModel, **how) -> list:
    """`work(model)` on each rank."""

    def run(team):
        monkeypatch.setattr(loading, "_join_team", lambda *_: (mine.team, "cpu"))
        mine.team = team
        with LOADING:  # LazyGuard is the process's
            monkeypatch.setattr(loading, "team_of", None)
            team_meets, team.meet = team.meet, lambda: None
            model = loading.load(cls, str(folder), ranks=size, **how)
            team.meet = team_meets
        model.img_context_token_id = 1002
        team.meet()
        return work(model)

    mine = threading.local()
    return run_ranks(size, run)


def prompt(model):
    ids = np.random.default_rng(0).integers(3, 1000, (1, 24))
    ids[0, 2 : 2 + 3 * model.num_image_token] = 1002
    return paddle.to_tensor(random_pixels(3, model.config.tile_side)), paddle.to_tensor(ids)


def logits(model) -> np.ndarray:
    with paddle.no_grad():
        return model(*prompt(model)).logits.numpy()


def tokens(model) -> list:
    pixels, ids = prompt(model)
    settings = {"max_new_tokens": 8, "do_sample": True, "top_k": 20, "seed": 3}
    return model.generate(pixels, ids, **settings).tolist()


def config_for(case: str, size: int) -> dict:
    config = tiny_config(case)
    if case == "qwen2":  # whose 7 heads only 7 ranks can share
        config["llm_config"].update(hidden_size=64, num_attention_heads=8, num_key_value_heads=2)
    return config


@pytest.mark.parametrize("size", [2, 4])
def test_equal_to_the_whole(monkeypatch, tmp_path, case, size):
    config = config_for(case, size)
    if size not in ShardPlan.of(config["llm_config"], 0, 1).possible_sizes:
        pytest.skip("can't be shared by so many")
    folder = random_checkpoint(tmp_path / "hf", config)
    whole = AutoModel.from_pretrained(str(folder))
    expected, chosen = logits(whole), tokens(whole)
    for place in (folder, tmp_path / "pd"):
        if place != folder:
            convert(folder, place, to_paddle=True)
        for ours, said, held in shared(monkeypatch, place, size, lambda m: (logits(m), tokens(m), parameters(m))):
            assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-5
            assert said == chosen
            assert held < 0.8 * parameters(whole) if size == 4 else held < parameters(whole)


def parameters(model) -> int:
    return sum(p.size for p in model.language_model.parameters())


@pytest.mark.parametrize(("bits", "group_size"), [(8, -1), (8, 64), (4, 64), (4, -1)])
@pytest.mark.parametrize("case", ["dynamic_gqa", "biased_v1", "phi3_su"])
def test_few_bits(monkeypatch, tmp_path, case, bits, group_size):
    """Rounded while loading, and converted: every share is a part of the same rounded weights."""
    config = config_of(case)
    config["llm_config"].update(hidden_size=128, intermediate_size=256, num_attention_heads=4)
    if "short_factor" in (config["llm_config"].get("rope_scaling") or {}):
        config["llm_config"]["rope_scaling"].update(short_factor=[1.0] * 16, long_factor=[2.0] * 16)
    folder = random_checkpoint(tmp_path / "hf", config)
    how = {f"load_in_{bits}bit": True, "group_size": group_size}
    expected = logits(AutoModel.from_pretrained(str(folder), **how))
    command = ["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "pd"), "--group-size", str(group_size)]
    assert convert_cli([*command, "--quantize", f"weight_only_int{bits}"]) == 0
    wanted = Quantization(f"weight_only_int{bits}", group_size)
    for place, quantization in ((folder, wanted), (tmp_path / "pd", None)):
        for ours, few in shared(monkeypatch, place, 2, lambda m: (logits(m), count(m)), quantization=quantization):
            assert np.abs(ours - expected).max() / np.abs(expected).max() < 2e-5
            assert few > 0


def count(model) -> int:
    return sum(isinstance(layer, QuantizedLinear) for layer in model.sublayers())


def test_shares_that_no_kernel_takes_are_floats(monkeypatch, tmp_path):
    """o_proj's 64 inputs make 32 on each of two ranks, which is not a multiple of 64: the same numbers, as floats."""
    folder = random_checkpoint(tmp_path / "hf", config_of("llama"))
    whole = AutoModel.from_pretrained(str(folder), load_in_8bit=True)
    wanted = Quantization("weight_only_int8", -1)
    for ours, few in shared(monkeypatch, folder, 2, lambda m: (logits(m), count(m)), quantization=wanted):
        np.testing.assert_allclose(ours, logits(whole), rtol=0, atol=2e-5 * np.abs(logits(whole)).max())
        assert 0 < few < count(whole)


def test_a_tied_head(monkeypatch, tmp_path):
    folder = random_checkpoint(tmp_path / "hf", tiny_config("llama"))
    arrays = load_file(folder / "model.safetensors")
    arrays.pop("language_model.lm_head.weight")
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    expected = logits(AutoModel.from_pretrained(str(folder)))
    for ours in shared(monkeypatch, folder, 2, logits):
        assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_tiles_are_shared_out(monkeypatch, hf_folders, models, tiles):
    pixels = paddle.to_tensor(random_pixels(tiles, 56))
    seen: list[int] = []

    def work(model):
        model.vision_model.embeddings.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[0]))
        return model.extract_feature(pixels).numpy(), [x.numpy() for x in model.feature_steps(pixels)]

    with paddle.no_grad():
        expected = models["llama"].extract_feature(pixels).numpy()
    for ours, (stepped,) in shared(monkeypatch, hf_folders["llama"], 2, work):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(stepped, ours)
    assert sum(seen) == 2 * tiles


class Noting(np.ndarray):
    """An array that notes what is read of it."""

    read: list

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.read.append(part.size)
        return part

    def __array_finalize__(self, other):
        self.read = getattr(other, "read", [])


@pytest.mark.parametrize("layout", ["hf", "pd"])
def test_only_the_own_part_is_read(tmp_path, layout):
    folder = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    if layout == "pd":
        convert(folder, tmp_path / "pd", to_paddle=True)
    checkpoint = Checkpoint(tmp_path / layout)
    tensors = CheckpointView(checkpoint, json.loads((folder / "config.json").read_text()))
    real = checkpoint.array
    split = ShardPlan.of(tiny_config("dynamic_gqa")["llm_config"], 1, 2)
    for name in tensors.outputs:
        cut = split.shard_of(name)
        if cut is None or not name.startswith("language_model."):
            continue
        read: list[int] = []

        def noting(source, read=read):
            array = real(source).view(Noting)
            array.read = read
            return array

        whole = tensors.array(name)
        checkpoint.array = noting
        own = tensors.array(name, cut=cut)
        checkpoint.array = real
        index = [slice(None)] * whole.ndim
        index[cut.axis] = slice(cut.start, cut.stop)
        filled = [slice(None)] * whole.ndim
        filled[cut.axis] = slice(0, cut.stop - cut.start)
        np.testing.assert_array_equal(own[tuple(filled)], whole[tuple(index)])
        assert max(read) <= own.size  # the largest view that was taken of a source
    padded = tensors.array("mlp1.1.weight", cut=ShardSpec(1, 3, 9, 8))
    np.testing.assert_array_equal(padded[:, :6], tensors.array("mlp1.1.weight")[:, 3:9])
    assert padded.shape[1] == 8 and not padded[:, 6:].any()


def test_the_whole_checkpoint_must_still_fit(monkeypatch, tmp_path):
    folder = random_checkpoint(tmp_path / "hf", tiny_config("llama"))
    convert(folder, tmp_path / "pd", to_paddle=True)
    arrays = load_file(tmp_path / "pd/model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    arrays[name] = arrays[name][:, :-2].copy()
    save_file(arrays, tmp_path / "pd/model.safetensors", metadata={"format": "np"})
    with pytest.raises(ValueError, match=r"up_proj.weight has shape \[64, 110\], the model \[64, 112\]"):
        shared(monkeypatch, tmp_path / "pd", 2, logits)


def test_an_internlm2_alone(monkeypatch, hf_folders, models, tmp_path):
    config = tiny_config("dynamic_gqa")["llm_config"]
    folder = part(hf_folders, "dynamic_gqa", "language_model.", config, tmp_path / "language")
    ids = paddle.to_tensor([[5, 6, 7, 8]])
    with paddle.no_grad():
        expected = models["dynamic_gqa"].language_model(ids).numpy()
    for ours in shared(monkeypatch, folder, 2, lambda m: m(ids).logits.numpy(), cls=InternLM2ForCausalLM):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_vision_tower_alone_is_refused(hf_folders, tmp_path):
    config = tiny_config("dynamic_gqa")["vision_config"]
    folder = part(hf_folders, "dynamic_gqa", "vision_model.", config, tmp_path / "vision")
    with pytest.raises(ValueError, match="is for language models, and a intern_vit_6b has none"):
        AutoModel.from_pretrained(str(folder), tensor_parallel_degree=2)
