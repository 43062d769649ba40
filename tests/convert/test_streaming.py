"""Folder to folder: byte-equal round trips, resuming, atomicity, and refusals."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from convert import CheckpointError
from convert.safetensors_io import Checkpoint, header_bytes
from convert.streaming import convert
from paddle_internvl.bench import conversion
from tests.random_checkpoints import TOKENIZER_FILES, random_checkpoint, tiny_config, upstream_shapes


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("shard", [1 << 40, 100_000])
def test_round_trip_is_byte_equal(tmp_path, case, shard):
    source = random_checkpoint(tmp_path / "hf", tiny_config(case))
    audit = convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=shard)
    back = convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    assert contents(tmp_path / "back") == contents(source)  # the files, not only their tensors
    assert (audit.keys_in, audit.keys_out) == (back.keys_out, back.keys_in)
    assert audit.bytes_in == audit.bytes_out == back.bytes_out
    assert (audit.shards > 1) == (shard == 100_000)
    assert {*TOKENIZER_FILES, "config.json", "generation_config.json"} <= contents(tmp_path / "pd").keys()
    assert not list(tmp_path.glob(".*"))


def test_sharded_source(tmp_path):
    config = tiny_config("biased_v1")
    one = random_checkpoint(tmp_path / "one", config)
    many = random_checkpoint(tmp_path / "many", config, max_shard_size=60_000)
    assert len(list(many.glob("*.safetensors"))) > 3
    convert(one, tmp_path / "a", to_paddle=True)
    convert(many, tmp_path / "b", to_paddle=True)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a == b  # what it was cut into leaves no trace


@pytest.mark.parametrize("name", ["x", "InternVL2-Llama3-76B-AWQ", "InternVL2_5-1B"])
def test_a_folders_name_means_nothing(tmp_path, name):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    convert(source, tmp_path / "pd", to_paddle=True)
    convert(source.rename(tmp_path / name), tmp_path / "Mini-InternVL-Chat-4B-V1-5", to_paddle=True)
    assert contents(tmp_path / "Mini-InternVL-Chat-4B-V1-5") == contents(tmp_path / "pd")


def test_shards_respect_their_limit(tmp_path):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=200_000)
    checkpoint = Checkpoint(tmp_path / "pd")
    for file in {info.file for info in checkpoint.tensors.values()}:
        sizes = [info.nbytes for info in checkpoint.tensors.values() if info.file == file]
        assert sum(sizes) <= 200_000 or len(sizes) == 1
    index = json.loads((tmp_path / "pd/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(info.nbytes for info in checkpoint.tensors.values())


def test_cast(tmp_path):
    source = random_checkpoint(tmp_path / "hf", tiny_config("biased_v1"))  # bfloat16
    convert(source, tmp_path / "pd", to_paddle=True, dtype="float32")
    one, other = Checkpoint(source), Checkpoint(tmp_path / "pd")
    name = "vision_model.encoder.layers.0.attn.qkv.weight"
    wide = (one.array(name).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(other.array(name).view(np.float32), wide.T)
    assert json.loads((tmp_path / "pd/config.json").read_text())["torch_dtype"] == "float32"
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False, dtype="bfloat16")
    again = Checkpoint(tmp_path / "back")
    assert all(np.array_equal(one.array(n), again.array(n)) for n in one.tensors)


OPTIONS = {"to_paddle": True, "max_shard_size": 200_000}


@pytest.fixture
def interrupted(tmp_path):
    """A source, and the undisturbed conversion of it; a run to `pd` has ended within its third shard."""
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    convert(source, tmp_path / "whole", **OPTIONS)
    tensors = Checkpoint(tmp_path / "whole").tensors.values()
    first_two = sum(tensor.nbytes for tensor in tensors if tensor.file.name.startswith(("model-00001", "model-00002")))

    def interrupt(done, _total):
        if done > first_two:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "pd", progress=interrupt, **OPTIONS)
    assert not (tmp_path / "pd").exists()
    return source, tmp_path / "whole"


def test_an_interrupted_run_is_resumed(interrupted, tmp_path):
    source, whole = interrupted
    audit = convert(source, tmp_path / "pd", **OPTIONS)
    assert audit.resumed == 2 < audit.shards
    assert contents(tmp_path / "pd") == contents(whole)


@pytest.mark.parametrize("change", [{"max_shard_size": 150_000}, {"dtype": "bfloat16"}])
def test_other_options_start_anew(interrupted, tmp_path, change):
    assert convert(interrupted[0], tmp_path / "pd", **{**OPTIONS, **change}).resumed == 0


def test_another_source_starts_anew(interrupted, tmp_path):
    os.utime(interrupted[0] / "model.safetensors")  # for all that its size and time show
    assert convert(interrupted[0], tmp_path / "pd", **OPTIONS).resumed == 0


def test_a_source_that_changes_meanwhile_is_refused(tmp_path):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))

    def change(done, total):
        if done == total:
            with open(source / "model.safetensors", "r+b") as stream:
                stream.seek(-4, os.SEEK_END)
                stream.write(b"\0" * 4)

    with pytest.raises(CheckpointError, match=r"hf has been changed while it was read; run it again"):
        convert(source, tmp_path / "pd", to_paddle=True, progress=change)
    assert not (tmp_path / "pd").exists()


def test_refusals(tmp_path):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"full is not empty; remove it or choose another --dst"):
        convert(source, tmp_path / "full", to_paddle=True)
    assert contents(tmp_path / "full") == {"file": b"mine"}
    with pytest.raises(CheckpointError, match="same folder"):
        convert(source, source, to_paddle=True)
    with pytest.raises(CheckpointError, match=r"in Hugging Face's layout already; hf2pd is the other direction"):
        convert(source, tmp_path / "x", to_paddle=False)
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", to_paddle=True)  # an empty folder is as good as none
    with pytest.raises(CheckpointError, match=r"in Paddle's layout already; pd2hf is the other direction"):
        convert(tmp_path / "empty", tmp_path / "x", to_paddle=True)
    (source / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json does not exist"):
        convert(source, tmp_path / "x", to_paddle=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "hf"]


def test_no_space_before_the_start(tmp_path, monkeypatch):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(CheckpointError, match=r"no space at .* bytes are needed, 1,000 are free"):
        convert(source, tmp_path / "pd", to_paddle=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_no_space_on_the_way(tmp_path, monkeypatch):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CheckpointError, match="no space left at .*; make room and run the same again"):
        convert(source, tmp_path / "pd", to_paddle=True)
    assert not (tmp_path / "pd").exists()


def test_progress_reaches_the_end(tmp_path, case):
    source = random_checkpoint(tmp_path / "hf", tiny_config(case))
    seen = []
    convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=100_000, progress=lambda *at: seen.append(at))
    done = [at for at, _ in seen]
    assert done == sorted(done) and seen[-1][0] == seen[-1][1] > 0


def zero_checkpoint(folder: Path, config: dict) -> Path:
    """A Hugging Face folder whose weights are a hole in the file: large, and made at once."""
    folder.mkdir()
    header = header_bytes([(name, "BF16", shape) for name, shape in upstream_shapes(config).items()], {"format": "pt"})
    (folder / "model.safetensors").write_bytes(header)
    size = sum(2 * int(np.prod(shape)) for shape in upstream_shapes(config).values())
    os.truncate(folder / "model.safetensors", len(header) + size)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_memory_does_not_grow_with_the_model(tmp_path):
    """Anonymous memory stays below 120 MB plus the largest tensor, whatever the size (here 190 MB)."""
    config = tiny_config("biased_v1")
    config["llm_config"].update(hidden_size=768, intermediate_size=8192, num_hidden_layers=4, vocab_size=4096)
    source = zero_checkpoint(tmp_path / "hf", config)
    largest = max(info.nbytes for info in Checkpoint(source).tensors.values())
    size = (source / "model.safetensors").stat().st_size
    peak = conversion.convert(source, tmp_path / "pd")
    assert 0 < peak < 120e6 + largest < size
