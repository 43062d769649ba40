"""`verify`: equal folders pass at every stage; a damaged weight is found at its own stage."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.cli import main as convert_cli
from paddle_internvl.cli.main import main
from paddle_internvl.verification import stages
from tests.random_checkpoints import random_checkpoint, tiny_config

STAGES = [
    "tiles", "pixel_values", "prompt", "vit.embed", "vit.block.0", "vit.block.1", "vit.block.2", "shuffle", "projector",
    "embeds", "dec.block.0", "dec.block.1", "dec.block.2", "dec.norm", "logits", "tokens",
]  # fmt: skip


def verify(capsys, *arguments) -> tuple[int, dict]:
    code = main(["verify", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def float32(case: str) -> dict:
    return {**tiny_config(case), "torch_dtype": "float32"}


@pytest.mark.parametrize("case", ["dynamic_gqa", "phi3_su"])
def test_raw_and_converted_are_equal(case, tmp_path, capsys):
    source = random_checkpoint(tmp_path / "hf", tiny_config(case))
    assert convert_cli(["hf2pd", "--src", str(source), "--dst", str(tmp_path / "pd")]) == 0
    code, document = verify(capsys, source, tmp_path / "pd")
    assert code == 0 and document["first out of bound"] is None and document["difference"] == "nothing"
    assert [result["stage"] for result in document["stages"]] == STAGES
    assert all(result["error"] == 0 for result in document["stages"])


@pytest.mark.parametrize(
    ("tensor", "stage"),
    [
        ("vision_model.encoder.layers.1.attn.proj.bias", "vit.block.1"),
        ("vision_model.embeddings.class_embedding", "vit.embed"),
        ("mlp1.3.weight", "projector"),
        ("language_model.model.layers.2.feed_forward.w2.weight", "dec.block.2"),
        ("language_model.model.norm.weight", "dec.norm"),
        ("language_model.output.weight", "logits"),
    ],
)
def test_a_damaged_weight_is_found_at_its_stage(tensor, stage, tmp_path, capsys):
    source = random_checkpoint(tmp_path / "hf", float32("dynamic_gqa"))
    damaged = shutil.copytree(source, tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors[tensor].flat[3] += 0.5
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    code, document = verify(capsys, source, damaged)
    assert (code, document["first out of bound"]) == (1, stage)
    assert main(["verify", str(source), str(damaged)]) == 1
    assert f"{stage} is the first stage out of its bound" in capsys.readouterr().out


def test_a_missing_layer_is_out_of_bound(tmp_path, capsys):
    config = float32("dynamic_gqa")
    source = random_checkpoint(tmp_path / "hf", config)
    config["llm_config"]["num_hidden_layers"] -= 1
    code, document = verify(capsys, source, random_checkpoint(tmp_path / "less", config))
    assert (code, document["first out of bound"]) == (1, "dec.norm")
    assert {"stage": "dec.block.2", "error": None, "holds": False}.items() <= document["stages"][-1].items()


def test_quantized_parts_have_wider_bounds_and_others_do_not(tmp_path, capsys):
    source = random_checkpoint(tmp_path / "hf", float32("dynamic_gqa"))
    arguments = ["hf2pd", "--src", str(source), "--dst", str(tmp_path / "int8"), "--quantize", "weight_only_int8"]
    assert convert_cli(arguments) == 0
    code, document = verify(capsys, source, tmp_path / "int8")
    bounds = {result["stage"]: result["bound"] for result in document["stages"]}
    errors = {result["stage"]: result["error"] for result in document["stages"]}
    assert code == 0 and document["difference"] == "weight_only_int8"
    assert bounds["embeds"] == stages.EXACT and errors["embeds"] == 0
    assert bounds["logits"] > 0.01 and 1e-4 < errors["logits"] < bounds["logits"]
    assert bounds["tokens"] is None
    assert verify(capsys, tmp_path / "int8", tmp_path / "int8")[1]["difference"] == "nothing"


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (("awq", 128), None, "awq"),
        (("weight_only_int8", 64), ("weight_only_int8", 128), "weight_only_int8"),
        (("weight_only_int8", -1), ("weight_only_int4", 64), "weight_only_int4"),
        (("awq", 128), ("awq", 128), "nothing"),
    ],
)
def test_difference_of_quantized_folders(one, other, difference, tmp_path):
    for name, quantization in (("one", one), ("other", other)):
        config = tiny_config("qwen2")
        if quantization:
            method, group_size = quantization
            fields = {"quant_method": method, "group_size": group_size, "bits": 4}
            config["llm_config"]["quantization_config"] = fields
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert stages.difference(tmp_path / "one", tmp_path / "other") == difference


def test_a_bare_vision_tower_is_refused(tmp_path, capsys):
    config = tiny_config("dynamic_gqa")
    tower = random_checkpoint(tmp_path / "vit", {**config["vision_config"], "torch_dtype": "float32"})
    assert main(["verify", str(tower), str(tower)]) == 2
    assert "no InternVL chat model: its config.json has model_type 'intern_vit_6b'" in capsys.readouterr().err


def test_relative_error_by_hand():
    a = np.array([3.0, 4.0])
    assert stages.relative_error(a, a) == 0
    assert stages.relative_error(a + [0.0, 0.4], a) == pytest.approx(0.1)  # max: 0.4 / 4; Euclidean: 0.4 / 5
    assert stages.relative_error(a, a[:1]) == stages.relative_error(a * np.nan, a) == float("inf")
    assert stages.relative_error(np.array([1, 2]), np.array([1, 3])) == 1.0


@pytest.mark.torch
@pytest.mark.parametrize("case", ["dynamic_gqa", "qwen2", "qwen3", "qwen3_moe", "llama", "phi3_su", "internvl3"])
def test_against_transformers(case, tmp_path, capsys):
    config = float32(case)
    config["vision_config"]["image_size"] = config["force_image_size"]  # transformers has one side
    depths = {"vit": config["vision_config"]["num_hidden_layers"], "dec": config["llm_config"]["num_hidden_layers"]}
    blocks = [(stage, stage.partition(".block.")) for stage in STAGES[3:]]
    expected = [stage for stage, (part, _, index) in blocks if not index or int(index) < depths[part]]
    source = random_checkpoint(tmp_path / "hf", config)
    code, document = verify(capsys, source, source, "--torch")
    assert code == 0 and [result["stage"] for result in document["stages"]] == expected
    damaged = random_checkpoint(tmp_path / "other", config, seed=1)
    assert verify(capsys, source, damaged, "--torch")[1]["first out of bound"] == "vit.embed"


@pytest.mark.torch
def test_a_model_that_transformers_lacks_is_refused(tmp_path, capsys):
    source = random_checkpoint(tmp_path / "hf", tiny_config("phi3_yarn"))
    assert main(["verify", str(source), str(source), "--torch"]) == 2
    assert "type 'yarn' can't be expressed in transformers' layout" in capsys.readouterr().err
