"""The writer of checkpoint folders: what a kill, a full disk, another process or a changed file leaves behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convert import CheckpointError
from convert.checkpoint_writer import write_checkpoint
from convert.safetensors_io import Checkpoint
from convert.shard_writer import NewTensor
from tests.convert.killed_writer import new_tensors, value_of, write
from tests.random_checkpoints import ROOT


@pytest.mark.parametrize(("old", "new"), [(0, 2), (1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_kill_leaves_the_old_checkpoint_or_the_new_one(tmp_path, old, new):
    command = [sys.executable, "-m", "tests.convert.killed_writer", str(tmp_path), str(old), str(new)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20  # moments at which it was killed


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("old", [1, 2])
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, old, call, number):
    folder = tmp_path / "checkpoint"
    write(folder, 1, old)
    before, original, left = names(folder), getattr(os, call), [number]

    def full(*args):
        left[0] -= 1
        if left[0] < 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=f"no space left at {folder}; make room and run the same again"):
        write(folder, 2, 3)
    assert value_of(folder) == 1 and names(folder) == before and names(tmp_path) == {"checkpoint"}


def test_a_full_disk_shows_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(CheckpointError, match=f"no space at {tmp_path}: 768 bytes are needed, 10 are free"):
        write(tmp_path / "checkpoint", 1, 2)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("exists", [False, True])
def test_a_second_writer_is_refused(tmp_path, exists):
    folder = tmp_path / "checkpoint"
    if exists:
        write(folder, 1, 2)

    def another():
        with pytest.raises(CheckpointError, match=f"another process is writing {folder}; wait for it"):
            write(folder, 3, 2)

    write(folder, 2, 2, after_shard=another)
    assert value_of(folder) == 2 and names(tmp_path) == {"checkpoint"}


def test_a_dead_writers_lock_is_no_obstacle(tmp_path):
    (tmp_path / ".checkpoint.part.lock").touch()
    write(tmp_path / "checkpoint", 1, 1)
    assert value_of(tmp_path / "checkpoint") == 1 and names(tmp_path) == {"checkpoint"}


def test_a_folder_that_is_filled_meanwhile_is_kept(tmp_path):
    folder = tmp_path / "checkpoint"

    def fill():
        folder.mkdir()
        (folder / "file").write_text("mine")

    with pytest.raises(CheckpointError, match="checkpoint is not empty any more; run it again elsewhere"):
        write(folder, 1, 1, after_shard=fill, resume_key="sources")
    assert (folder / "file").read_text() == "mine" and value_of(tmp_path / ".checkpoint.part") == 1


def test_a_shard_that_is_changed_before_the_switch_is_refused(tmp_path, monkeypatch):
    replace = os.replace

    def truncate(source, target):
        replace(source, target)
        os.truncate(target, 100)

    monkeypatch.setattr(os, "replace", truncate)
    with pytest.raises(CheckpointError, match="model-00001-of-00002.safetensors has been changed by another process"):
        write(tmp_path / "checkpoint", 1, 2)
    assert names(tmp_path) == set()


def interrupt(folder: Path, shards: int, after: int, key: str) -> None:
    """A run that ends when `after` files are finished."""
    count = [0]

    def stop():
        count[0] += 1
        if count[0] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, 1, shards, resume_key=key, after_shard=stop)


@pytest.mark.parametrize(("key", "resumed"), [("same", 2), ("other", 0)])
def test_finished_shards_are_kept_for_the_same_sources(tmp_path, key, resumed):
    folder = tmp_path / "checkpoint"
    interrupt(folder, 3, after=2, key="same")
    assert not folder.exists()
    assert write(folder, 1, 3, resume_key=key) == (3, resumed)
    assert value_of(folder) == 1 and names(tmp_path) == {"checkpoint"}


@pytest.mark.parametrize("damage", ["truncated", "other header"])
def test_a_damaged_finished_shard_is_written_again(tmp_path, damage):
    folder = tmp_path / "checkpoint"
    interrupt(folder, 3, after=2, key="same")
    file = tmp_path / ".checkpoint.part/model-00001-of-00003.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-8] if damage == "truncated" else content.replace(b"weight.0", b"weight.9"))
    write(folder, 1, 3, resume_key="same")
    assert value_of(folder) == 1


def test_an_interrupted_run_without_a_key_leaves_nothing(tmp_path):
    interrupt(tmp_path / "checkpoint", 2, after=1, key=None)
    assert names(tmp_path) == set()


def test_a_folder_with_content_is_not_replaced_unasked(tmp_path):
    folder = tmp_path / "checkpoint"
    write(folder, 1, 1)
    with pytest.raises(CheckpointError, match="checkpoint is not empty; remove it or choose another --dst"):
        write_checkpoint(folder, new_tensors(2), {}, {}, replace=False)
    with pytest.raises(CheckpointError, match="config.json is a file; name a folder"):
        write_checkpoint(folder / "config.json", new_tensors(2), {}, {}, replace=True)
    assert value_of(folder) == 1


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for value in (1, 2):
        write(tmp_path / "link", value, 2)
        assert value_of(tmp_path / "elsewhere") == value and names(tmp_path) == {"elsewhere", "link"}


def test_rows_are_made_in_the_units_that_a_tensor_names(tmp_path, monkeypatch):
    monkeypatch.setattr("convert.shard_writer._PIECE", 300)  # bytes
    made = []

    def fill(out, first, last):
        made.append((first, last))
        out[:] = np.arange(first, last, dtype=np.uint32)[:, None]

    write_checkpoint(tmp_path / "x", [NewTensor("a", "F32", (50, 10), fill, rows=6)], {}, {}, replace=False)
    assert sorted(made) == [(first, min(first + 6, 50)) for first in range(0, 50, 6)]
    np.testing.assert_array_equal(Checkpoint(tmp_path / "x").array("a")[:, 3], np.arange(50))


def test_progress_is_that_of_all_files(tmp_path):
    reports = []
    write(tmp_path / "checkpoint", 1, 3, on_progress=lambda *report: reports.append(report))
    done = [at for at, _ in reports]
    assert done == sorted(done) and reports[-1] == (768, 768)
