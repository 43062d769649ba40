"""Folders checkpoint-<step> of a training run: whole or not, the newest, deletion of old ones. Files only.

A checkpoint is whole when its mark `complete.json` is there, which is written last, after every other file is on disk,
and every file that the mark lists has its size.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from convert.destination import sync

PREFIX, MARK = "checkpoint-", "complete.json"


def checkpoints(output: Path) -> dict[int, Path]:
    """The checkpoint folders of a run by step, whole or not, in order of step."""
    found = {f.name.removeprefix(PREFIX): f for f in output.glob(f"{PREFIX}*") if f.is_dir()}
    return {int(step): found[step] for step in sorted((s for s in found if s.isdigit()), key=int)}


def read_mark(folder: Path) -> dict | None:
    """The mark of a whole checkpoint; None: the checkpoint is not whole."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in mark["files"].items())
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return mark if whole else None


def newest(output: Path) -> Path | None:
    """The whole checkpoint of the highest step; None: there is none."""
    whole = [folder for folder in checkpoints(output).values() if read_mark(folder)]
    return whole[-1] if whole else None


def write_mark(folder: Path, content: dict) -> None:
    """Bring the files of a checkpoint to disk, then mark it as whole.

    Args:
        folder: with every file of the checkpoint.
        content: of the mark, beside the files' sizes.
    """
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    for file in files:
        sync(file)
    sync(folder)
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in files}
    temporary = folder / f"{MARK}.tmp"
    temporary.write_text(json.dumps({**content, "files": sizes}, indent=2) + "\n", encoding="utf-8")
    sync(temporary)
    os.replace(temporary, folder / MARK)
    sync(folder)
    sync(folder.parent)


def remove(folder: Path) -> None:
    """Delete a checkpoint; its mark goes first, so that a deletion that is broken off leaves no whole checkpoint."""
    if (folder / MARK).exists():
        (folder / MARK).unlink()
        sync(folder)
    shutil.rmtree(folder)


def remove_incomplete(output: Path) -> None:
    """Delete the checkpoints that are not whole."""
    for folder in checkpoints(output).values():
        if not read_mark(folder):
            remove(folder)


def remove_old(output: Path, keep: int | None) -> None:
    """Delete whole checkpoints but the newest ones.

    Args:
        output: of the run.
        keep: number of checkpoints that stay (`save_total_limit`); None or 0: all.
    """
    whole = [folder for folder in checkpoints(output).values() if read_mark(folder)]
    for folder in whole[:-keep] if keep else []:
        remove(folder)
