"""`save_pretrained`: PaddleNLP's arguments, saving over an older checkpoint, and what config.json then says."""

import errno
import json
import os

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.safetensors_io import Checkpoint
from convert.streaming import convert
from paddle_internvl import InternVLChatConfig, InternVLChatModel
from tests.checkpoints.test_loading import same
from tests.random_checkpoints import random_checkpoint, tiny_config


@pytest.fixture
def model(hf_folders):
    """A model that the test may change."""
    return AutoModel.from_pretrained(str(hf_folders["dynamic_gqa"]))


def other_weights(model):
    """Change every weight a little."""
    for parameter in model.parameters():
        parameter.set_value(parameter * 1.5)
    return model


@pytest.mark.parametrize("old_size", ["1GB", "100KB"])
@pytest.mark.parametrize("new_size", ["1024GB", "150KB", 100_000])
def test_saving_over_an_older_checkpoint(model, tmp_path, old_size, new_size):
    model.save_pretrained(str(tmp_path), max_shard_size=old_size)
    (tmp_path / "trainer_state.json").write_text("{}")
    other_weights(model).save_pretrained(str(tmp_path), max_shard_size=new_size)
    assert same(AutoModel.from_pretrained(str(tmp_path)), model)
    files = {info.file.name for info in Checkpoint(tmp_path).tensors.values()}
    assert files == {file.name for file in tmp_path.glob("*.safetensors")} and len(files) > 1 or new_size == "1024GB"
    assert (tmp_path / "trainer_state.json").exists() and not list(tmp_path.glob(".*"))


def test_saving_onto_its_own_folder(tmp_path):
    """The weights are mapped from the files that the new ones replace."""
    source = random_checkpoint(tmp_path / "hf", tiny_config("biased_v1"), max_shard_size=60_000)
    model = AutoModel.from_pretrained(str(source))
    before = {path.name for path in source.iterdir() if path.suffix != ".safetensors"}
    model.save_pretrained(str(source))
    assert same(AutoModel.from_pretrained(str(source)), model)
    assert {path.name for path in source.iterdir()} == before - {"model.safetensors.index.json"} | {"model.safetensors"}


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_costs_neither_the_old_checkpoint_nor_the_config(model, tmp_path, monkeypatch, call):
    model.save_pretrained(str(tmp_path), max_shard_size=200_000)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other_weights(model)
    config, left, original = model.config.to_dict(), [4], getattr(os, call)

    def full(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="no space left at"):
        model.save_pretrained(str(tmp_path), max_shard_size=100_000)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert model.config.to_dict() == config
    model.save_pretrained(str(tmp_path))
    assert same(AutoModel.from_pretrained(str(tmp_path)), model)
    assert model.config.to_dict() == config


def test_as_paddlenlps_trainer_calls_it(model, tmp_path):
    model.save_pretrained(
        str(tmp_path), variant=None, save_function=paddle.save, merge_tensor_parallel=False, is_main_process=True,
        max_shard_size="1024GB",
    )  # fmt: skip
    assert same(AutoModel.from_pretrained(str(tmp_path)), model)
    assert not list(tmp_path.glob("*.pdparams"))


def test_another_process_writes(model, tmp_path):
    model.save_pretrained(str(tmp_path / "saved"), is_main_process=False)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"variant": "tp00"}, ValueError, "variant='tp00' is not supported"),
        ({"safe_serialization": False}, ValueError, "safe_serialization=False is not supported"),
        ({"max_shard_size": "many"}, CheckpointError, "'many' is no size; write 5GB"),
        ({"config_to_save": None}, TypeError, "unexpected keyword argument 'config_to_save'"),
        ({"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_refused_arguments(models, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        models["dynamic_gqa"].save_pretrained(str(tmp_path / "saved"), **arguments)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("kind", ["paddle", "numpy"])
def test_a_given_state_dict_is_what_is_written(model, tmp_path, kind):
    given = {name: weight * 2 for name, weight in model.state_dict().items()}
    given = given if kind == "paddle" else {name: weight.numpy() for name, weight in given.items()}
    model.save_pretrained(str(tmp_path), state_dict=given)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == given.keys()
    assert all(np.array_equal(saved[name], np.asarray(given[name])) for name in saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mlp1.3.bias"), r"state_dict lacks mlp1.3.bias \(1 missing, 0 unknown\)"),
        (lambda w: w.update(more=w["mlp1.3.bias"]), r"has the unknown more \(0 missing, 1 unknown\)"),
        (lambda w: w.update({"mlp1.3.bias": w["mlp1.3.bias"][:5]}), r"mlp1.3.bias has shape \[5\], the model \[64\]"),
    ],
)
def test_a_state_dict_that_does_not_fit(model, tmp_path, change, message):
    given = model.state_dict()
    change(given)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(str(tmp_path / "saved"), state_dict=given)
    assert not (tmp_path / "saved").exists()


@pytest.fixture
def tied(tmp_path):
    """A folder whose head is its embedding: it has no tensor of its own, and config.json says so."""
    folder = random_checkpoint(tmp_path / "tied", tiny_config("qwen2"))
    arrays = load_file(folder / "model.safetensors")
    del arrays["language_model.lm_head.weight"]
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def ties(folder) -> bool:
    return json.loads((folder / "config.json").read_text())["llm_config"]["tie_word_embeddings"]


@pytest.mark.parametrize("trained", [False, True])
def test_a_trained_head_is_not_declared_tied(tied, tmp_path, trained):
    model = AutoModel.from_pretrained(str(tied))
    head = model.language_model.lm_head.weight
    if trained:
        head.set_value(head + paddle.ones_like(head))
    model.save_pretrained(str(tmp_path / "saved"))
    convert(tmp_path / "saved", tmp_path / "back", to_paddle=False)
    assert ties(tmp_path / "saved") == ties(tmp_path / "back") == (not trained)
    written = load_file(tmp_path / "back/model.safetensors")
    np.testing.assert_array_equal(written["language_model.lm_head.weight"], head.numpy().T)
    assert same(AutoModel.from_pretrained(str(tmp_path / "saved")), model)
    assert model.config.llm_config.tie_word_embeddings  # the model's config is not the writer's to change


def test_a_model_that_came_from_no_folder(tmp_path):
    model = InternVLChatModel(InternVLChatConfig(**tiny_config("dynamic_gqa")))
    model.save_pretrained(str(tmp_path / "saved"))
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {"config.json", "model.safetensors"}
    assert same(AutoModel.from_pretrained(str(tmp_path / "saved")), model)
