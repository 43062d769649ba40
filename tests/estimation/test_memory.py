"""Estimates of memory beside what Paddle's allocator counted, and what they advise."""

import json
import subprocess
import sys

import pytest
from paddlenlp.transformers import AutoModel

from convert.folder import read_config
from paddle_internvl.cli.main import main
from paddle_internvl.estimation import Plan, estimate, ways_out
from paddle_internvl.kernels import library
from paddle_internvl.ops import dispatch
from tests.benchmarks.memory import allocator_peak
from tests.random_checkpoints import ROOT, TOKENIZER, tiny_config

BIG = str(ROOT / "configs/internvl2_5-78b.json")


@pytest.fixture(scope="module")
def bundled():
    return AutoModel.from_pretrained(str(TOKENIZER), dtype="float32")


# A CPU without kernels, which widens weights and holds scores.
WITHOUT = {"attention": "chunked", "decoder_layer": "modules", "vision_layer": "modules", "rope": "plain",
           "swiglu": "fused", "rms_norm": "fused", "layer_norm": "plain",
           "gelu": "plain", "linear": "plain", "weight_only": "plain"}  # fmt: skip


def config_of(name: str) -> dict:
    return json.loads((ROOT / f"configs/{name}.json").read_text())


@pytest.mark.parametrize(
    ("tiles", "context", "batch"), [(0, 64, 1), (0, 768, 1), (0, 256, 6), (1, 256, 1), (4, 512, 1), (2, 512, 3)]
)
def test_the_bundled_checkpoints_real_peak(bundled, tiles, context, batch):
    """Within 15 % of what was allocated."""
    said = estimate(read_config(TOKENIZER), Plan(batch, context, tiles, device="cpu", kernels=False)).total
    with dispatch.use_forms(**WITHOUT):
        assert 0.85 < allocator_peak(bundled, tiles, context, batch) / said < 1.15


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_on_a_cpu(bits):
    model = AutoModel.from_pretrained(str(TOKENIZER), dtype="float32", **{f"load_in_{bits}bit": True})
    said = estimate(read_config(TOKENIZER), Plan(1, 256, 0, bits=bits, device="cpu", kernels=False)).total
    with dispatch.use_forms(**WITHOUT):
        assert 0.85 < allocator_peak(model, 0, 256, 1) / said < 1.15


@pytest.mark.parametrize(("tiles", "context", "batch"), [(0, 768, 1), (4, 512, 2)])
def test_the_real_peak_with_kernels(tiles, context, batch):
    """Within 15 % of what was allocated, the operators' own memory with it; in a process of its own, which keeps it."""
    if library.unavailable_reason():
        pytest.skip(library.unavailable_reason())
    sizes = ("--tiles", str(tiles), "--context", str(context), "--batch", str(batch))
    words = [sys.executable, "-m", "tests.benchmarks.memory", str(TOKENIZER), *sizes]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert 0.85 < json.loads(done.stdout.splitlines()[-1])["allocated / estimate"] < 1.15


def test_kernels_keep_weights_as_they_are():
    config = config_of("internvl2_5-8b")
    narrow, wide = (estimate(config, Plan(device="cpu", kernels=on)) for on in (True, False))
    assert 0.5 < narrow.weights / wide.weights < 0.51  # norms and positions are float32
    assert estimate(config, Plan(device="cpu", dtype="float32")).weights == wide.weights
    assert narrow.kv_cache == wide.kv_cache and narrow.activations < wide.activations


@pytest.mark.parametrize("case", ["dynamic_gqa", "biased_v1", "qwen2", "llama", "phi3_yarn"])
def test_weights_are_counted_to_the_byte(models, case):
    counted = sum(parameter.size for parameter in models[case].parameters())
    plan = Plan(1, 64, 0, dtype="bfloat16")
    assert estimate(tiny_config(case), plan).weights == 2 * counted
    assert estimate(tiny_config(case), Plan(1, 64, 0, device="cpu", kernels=False)).weights == 4 * counted


def test_shares_hold_less_of_all_but_the_tower():
    whole, shared = (estimate(config_of("internvl2_5-78b"), Plan(tp=n)) for n in (1, 4))
    tower = 2 * 5_903_390_400  # upstream's InternViT-6B, in bfloat16, roughly; the projector is whole too
    assert 0.24 < (shared.weights - tower) / (whole.weights - tower) < 0.27
    assert shared.kv_cache == whole.kv_cache / 4 and shared.activations < whole.activations


def test_ways_out_fit_and_are_the_mildest():
    config, plan = config_of("internvl2_5-38b"), Plan(context=8192)
    room = 40 << 30
    ways = ways_out(config, plan, gpus=8, memory=room)
    assert [(way.tp, way.bits, way.tiles) for way, _ in ways][:1] == [(4, None, 13)]
    assert all(size == estimate(config, way) and size.total <= room for way, size in ways)
    assert estimate(config, Plan(tp=2)).total > room
    few = [way for way, _ in ways if way.bits]
    assert len(few) == 1 and few[0].tp == 1
    both = ways_out(config_of("internvl2_5-78b"), Plan(), gpus=2, memory=48 << 30)
    assert [(way.tp, way.bits) for way, _ in both] == [(2, 4)] or [(way.tp, way.bits) for way, _ in both] == [(2, 8)]


def test_awq_is_four_bits_on_a_card_and_floats_on_a_cpu():
    config = config_of("internvl2_5-8b")
    config["llm_config"]["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "version": "gemm",
    }
    floats = config_of("internvl2_5-8b")
    few = estimate(config, Plan(dtype="float16"))
    assert few.weights < 0.45 * estimate(floats, Plan(dtype="float16")).weights
    for plan in (Plan(device="cpu", kernels=False), Plan(dtype="bfloat16")):  # whose scales would be rounded
        assert estimate(config, plan).weights == estimate(floats, plan).weights
    ways = ways_out(config, Plan(), gpus=1, memory=12 << 30)
    assert [way.dtype for way, _ in ways] == ["float16"]


def test_on_the_command_line(capsys):
    assert main(["estimate", BIG, "--gpus", "4", "--memory", "80", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    parts = document["bytes on each device"]
    assert document["plan"]["tp"] == 4 and document["plan"]["tiles"] == 13 and document["fits"]
    assert parts.pop("total") == sum(parts.values()) and document["possible tp"][:4] == [1, 2, 4, 8]
    assert main(["estimate", BIG, "--gpus", "8", "--tp", "1", "--memory", "80"]) == 1
    shown = capsys.readouterr().out
    assert "does not fit into 80 GiB" in shown and "would fit: tp 4, bfloat16, batch 1" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tp", "3", "--gpus", "8"], "tensor parallel over 3 is not possible for 64 heads, 8 kv heads"),
        (["--tp", "4"], "--tp 4 needs as many cards; --gpus is 1"),
        (["--dtype", "int8"], "dtype='int8' is not supported"),
        (["--tiles", "40"], "40 tiles are 10240 tokens, more than the context of 8192"),
        (["--batch", "0"], "batch=0 is not above 0"),
        (["--device", "cpu", "--gpus", "2"], "--gpus is for --device gpu"),
        (["--memory", "0"], "must be above 0"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert main(["estimate", BIG, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_only_whole_models(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internlm2"}))
    assert main(["estimate", str(tmp_path)]) == 2
    assert "no InternVL chat model: model_type 'internlm2'" in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    call = f"main(['estimate', {BIG!r}])"
    code = f"import sys; from paddle_internvl.cli.main import main; {call}; print('paddle' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "False"
