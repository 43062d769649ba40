"""The reader and writer against the safetensors library, and every way a file or folder can be broken."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.safetensors_io import Checkpoint, header_bytes, in_shards, parse_size, read_header


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 3), max_size=3), max_size=6))
def test_library_reads_what_we_write(tmp_path_factory, shapes):
    folder = tmp_path_factory.mktemp("written")
    shapes.pop("__metadata__", None)
    arrays = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    header = header_bytes([(name, "F32", array.shape) for name, array in arrays.items()], {"format": "np"})
    (folder / "model.safetensors").write_bytes(header + b"".join(array.tobytes() for array in arrays.values()))
    read = load_file(folder / "model.safetensors")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64, np.int8, np.uint8, bool])
def test_we_read_what_the_library_writes(tmp_path, dtype):
    arrays = {"a.weight": np.arange(12).reshape(3, 4).astype(dtype), "b": np.ones(5, dtype), "empty": np.ones(0, dtype)}
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.metadata == {"format": "pt"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.array(name).view(dtype), array)


def test_a_tensor_at_an_odd_byte(tmp_path):
    """Some writers do not align; the bytes are the same."""
    values = np.arange(3, dtype=np.float32)
    entry = {"flag": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
             "x": {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]}}  # fmt: skip
    text = json.dumps(entry).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\1" + values.tobytes())
    np.testing.assert_array_equal(Checkpoint(tmp_path).array("x").view(np.float32), values)


@pytest.fixture
def folder(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.arange(4, dtype=np.float32)}
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    for name, file in index["weight_map"].items():
        save_file({name: arrays[name]}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_shards(folder):
    assert list(Checkpoint(folder).tensors) == ["a", "b"]
    assert Checkpoint(folder).array("b").view(np.float32).tolist() == [0, 1, 2, 3]


def test_missing_shard(folder):
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shard model-2.safetensors.*download it again"):
        Checkpoint(folder)


def test_key_twice(folder):
    save_file({"a": np.ones(1), "b": np.ones(4)}, folder / "model-2.safetensors")
    with pytest.raises(CheckpointError, match="tensor a is in model-1.safetensors and in model-2.safetensors"):
        Checkpoint(folder)


def test_index_contradicts_the_shards(folder):
    save_file({"c": np.ones(4)}, folder / "model-2.safetensors")
    with pytest.raises(
        CheckpointError, match=r"b is in model-2.safetensors by the index, not in fact \(1 missing, 1 extra"
    ):
        Checkpoint(folder)


def test_index_that_is_no_json(folder):
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/x.safetensors", "sub/../../x.safetensors", "sub/x.safetensors", "", ".",
     "/dev/zero", "model\0.safetensors", "a\\b.safetensors", 7, None],
)  # fmt: skip
def test_an_index_that_leaves_the_folder(folder, name):
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index.json places b in .*, which is no file name; download it again"):
        Checkpoint(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": ["a"]}'])
def test_an_index_without_a_map(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index.json has no weight_map; download it again"):
        Checkpoint(folder)


def test_a_shard_that_is_no_file(folder):
    (folder / "model-2.safetensors").unlink()
    os.mkfifo(folder / "model-2.safetensors")  # opening it would wait for ever
    with pytest.raises(CheckpointError, match="lacks the shard model-2.safetensors"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("size", "count"),
    [(7, 7), ("7", 7), ("5GB", 5 * 10**9), ("1024GB", 1024 * 10**9), ("0.5 MiB", 1 << 19), ("2tb", 2 * 10**12)],
)  # fmt: skip
def test_sizes(size, count):
    assert parse_size(size) == count


@pytest.mark.parametrize("size", ["many", "", "5 apples", 0, "-1", "0GB", None])
def test_what_is_no_size(size):
    with pytest.raises(CheckpointError, match="is no size; write 5GB, 500MB or a number of bytes"):
        parse_size(size)


def test_pickle(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pickle \(pytorch_model.bin\).*save them as safetensors"):
        Checkpoint(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model.safetensors nor"):
        Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        Checkpoint(tmp_path / "no")


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_truncated(tmp_path, keep):
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"truncated.*download it again"):
        read_header(file)


def test_longer_than_its_header(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2)}, file)
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="longer than its header says"):
        read_header(file)


def test_header_that_contradicts_itself(tmp_path):
    file = tmp_path / "model.safetensors"
    for entry, message in (
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "needs 8 bytes, its header gives it 4"),
        ({"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}, "unknown dtype F99"),
        ({"dtype": "F32", "shape": [1]}, "no readable safetensors header"),
        ([], "no readable safetensors header"),
    ):
        text = json.dumps({"a": entry}).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
        with pytest.raises(CheckpointError, match=message):
            read_header(file)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_never_crashes(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("garbage") / "model.safetensors"
    file.write_bytes(content)
    try:
        read_header(file)
    except CheckpointError:
        return
    assert len(content) >= 10  # the least that is a file: a size and an empty header


def test_in_shards():
    assert in_shards([3, 3, 9, 1], lambda size: size, 6) == [[3, 3], [9], [1]]
    assert in_shards([], lambda size: size, 6) == [[]]
