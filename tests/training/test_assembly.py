"""The model that a run begins with: progressive scaling in two commands, and arguments that contradict."""

import json
import shutil

import numpy as np
import pytest
from paddlenlp.transformers import AutoModel, AutoTokenizer

from paddle_internvl.cli.main import main
from paddle_internvl.training.assembly import AssemblyArguments, initial_checkpoint
from tests.checkpoints.test_assembling import decoder_folder
from tests.training.goldens import CHECKPOINT, FOLDER

TOWER = "vision_model."


def arrays(folder) -> dict[str, np.ndarray]:
    """Parameters of a folder, loaded as float32."""
    model = AutoModel.from_pretrained(str(folder), dtype="float32", trainable=True)
    return {name: parameter.numpy() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs `paddle-internvl train` for two steps and returns OUTPUT."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(FOLDER / "sft_run", root / "data")
    meta = json.loads((root / "data/meta.json").read_text())
    meta["train"]["root"] = str(FOLDER / "media")
    (root / "data/meta.json").write_text(json.dumps(meta))
    shared = {
        "meta_path": str(root / "data/meta.json"), "max_seq_length": 1024, "max_dynamic_patch": 1, "max_steps": 2,
        "per_device_train_batch_size": 1, "learning_rate": 1e-3, "shuffle": False, "device": "cpu",
    }  # fmt: skip
    (root / "run.json").write_text(json.dumps(shared))

    def train(name: str, **arguments):
        words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
        assert main(["train", str(root / "run.json"), "--output_dir", str(root / name), *words]) == 0
        return root / name

    return train


def test_a_tower_trained_with_a_small_language_model_goes_to_a_large_one(run, tmp_path):
    """Stage 1.5 with the small one, then stage 1 with a language model of another family and other widths."""
    small = run("small", model_name_or_path=CHECKPOINT, freeze_llm=True)
    decoder = decoder_folder(tmp_path / "decoder", "llama", 1009)
    large = run(
        "large", vision_path=small, llm_path=decoder, conv_style="internvl2_5", use_thumbnail=True,
        freeze_backbone=True, freeze_llm=True,
    )  # fmt: skip
    start, tower, begun, end = (arrays(folder) for folder in (CHECKPOINT, small, large / "initial", large))
    towers = [name for name in tower if name.startswith(TOWER)]
    assert any((start[name] != tower[name]).any() for name in towers)  # learnt with the small one
    assert all((tower[name] == begun[name]).all() and (begun[name] == end[name]).all() for name in towers)
    moved = {name for name in end if (begun[name] != end[name]).any()}
    assert moved == {name for name in end if name.startswith("mlp1.")}
    config = AutoModel.from_pretrained(str(large)).config
    assert (config.template, config.max_dynamic_patch, config.llm_config.vocab_size) == ("internvl2_5", 1, 1009)
    assert len(AutoTokenizer.from_pretrained(str(large))) == 1009


def test_the_folder_of_an_earlier_run_is_taken_if_its_arguments_are_the_same(tmp_path):
    small = AssemblyArguments(model_name_or_path=str(CHECKPOINT), force_image_size=56)
    folder = initial_checkpoint(small, {}, str(tmp_path), 1)
    written = (tmp_path / "initial/model.safetensors").stat().st_mtime_ns
    assert initial_checkpoint(small, {}, str(tmp_path), 1) == folder
    assert (tmp_path / "initial/model.safetensors").stat().st_mtime_ns == written
    other = AssemblyArguments(model_name_or_path=str(CHECKPOINT), force_image_size=84)
    initial_checkpoint(other, {"max_dynamic_patch": 3}, str(tmp_path), 1)
    config = json.loads((tmp_path / "initial/config.json").read_text())
    assert (config["force_image_size"], config["max_dynamic_patch"]) == (84, 3)
    same = AssemblyArguments(model_name_or_path=str(CHECKPOINT), force_image_size=112)
    assert initial_checkpoint(same, {}, str(tmp_path / "none"), 1) == str(CHECKPOINT)
    assert not (tmp_path / "none").exists()


def test_faults():
    with pytest.raises(ValueError, match="model_name_or_path and vision_path exclude each other"):
        AssemblyArguments(model_name_or_path="a", vision_path="b", llm_path="c")
    with pytest.raises(ValueError, match="vision_path needs llm_path"):
        AssemblyArguments(vision_path="b")
    with pytest.raises(ValueError, match="model_name_or_path is needed"):
        initial_checkpoint(AssemblyArguments(), {}, "out", 1)
    with pytest.raises(ValueError, match="conv_style is needed"):
        initial_checkpoint(AssemblyArguments(vision_path="b", llm_path="c"), {}, "out", 1)
