"""Folder to folder: byte-equal round trips, resuming, atomicity, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convert import CheckpointError, shard_writer
from convert.safetensors_io import Checkpoint
from convert.streaming import convert
from paddle_internvl.bench import conversion
from tests.random_checkpoints import ROOT, TOKENIZER_FILES, random_checkpoint, tiny_config


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


class Killed(BaseException):
    """Ends a conversion as a kill would: no handler of ours catches it."""


def test_a_killed_run_is_resumed(tmp_path, monkeypatch):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    convert(source, tmp_path / "whole", to_paddle=True, max_shard_size=200_000)
    written = []
    write = shard_writer.ShardWriter.write

    def write_two(self, file, tensors, progress):
        if len(written) == 2:
            file.with_suffix(".tmp").write_bytes(b"half a shard")
            raise Killed
        written.append(file.name)
        write(self, file, tensors, progress)

    monkeypatch.setattr(shard_writer.ShardWriter, "write", write_two)
    with pytest.raises(Killed):
        convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=200_000)
    assert not (tmp_path / "pd").exists()
    assert not (tmp_path / ".pd.part/config.json").exists()
    monkeypatch.undo()
    audit = convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=200_000)
    assert audit.resumed == 2
    assert contents(tmp_path / "pd") == contents(tmp_path / "whole")


def test_another_plan_starts_anew(tmp_path, monkeypatch):
    source = random_checkpoint(tmp_path / "hf", tiny_config("dynamic_gqa"))
    monkeypatch.setattr("convert.streaming._add_other_files", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=200_000)
    monkeypatch.undo()
    os.utime(source / "model.safetensors")  # the source is another file now
    assert convert(source, tmp_path / "pd", to_paddle=True, max_shard_size=200_000).resumed == 0


def test_a_real_kill_leaves_nothing_that_looks_like_a_checkpoint(tmp_path):
    config = tiny_config("dynamic_gqa")
    config["llm_config"]["vocab_size"] = 400_000  # some 200 MB, so that there is time to kill
    source = random_checkpoint(tmp_path / "hf", config)
    command = [sys.executable, "-m", "convert", "hf2pd", "--src", str(source), "--dst", str(tmp_path / "pd")]
    process = subprocess.Popen([*command, "--max-shard-size", "1MB"], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob(".pd.part/*.safetensors")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode == -signal.SIGKILL:
        assert not (tmp_path / "pd").exists()
    assert subprocess.run([*command, "--max-shard-size", "1MB"], cwd=ROOT, capture_output=True).returncode == (
        0 if process.returncode == -signal.SIGKILL else 2
    )
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    assert (tmp_path / "back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


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


def test_memory_does_not_grow_with_the_model(tmp_path):
    """Anonymous memory stays below 150 MB plus the largest tensor, whatever the size (here 500 MB)."""
    config = tiny_config("biased_v1")
    config["llm_config"].update(hidden_size=1536, intermediate_size=16384, num_hidden_layers=3, vocab_size=4096)
    source = random_checkpoint(tmp_path / "hf", config)
    largest = max(info.nbytes for info in Checkpoint(source).tensors.values())
    size = (source / "model.safetensors").stat().st_size
    peak = conversion.convert(source, tmp_path / "pd")
    assert 0 < peak < 150e6 + largest < size
