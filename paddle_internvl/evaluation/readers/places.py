"""Places of a benchmark's data: the file that a folder holds, and the pictures that a file names by their paths."""

from collections.abc import Sequence
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.readers.errors import ReadError


def find_picture(path: str, file: Path, folders: Sequence[str] = ()) -> Path:
    """The file of a relative path in a benchmark's file.

    The path is looked for beside the file, in folders beside it, and from each folder above it, as upstream's paths
    begin with `data/`.

    Returns:
        The first that exists, else the path beside the file.
    """
    first = file.parent / path
    if first.is_file():
        return first
    bases = [file.parent / folder for folder in folders] + list(file.absolute().parents)
    return next((base / path for base in bases if (base / path).is_file()), first)


def find_place(benchmark: Benchmark, path: Path, rules: str | None) -> Path:
    """The file or folder of a benchmark's data.

    Args:
        benchmark: its row of the table.
        path: a file, or a folder that holds VLMEvalKit's or upstream's files.
        rules: toolkit whose file is taken where a folder holds both; None: VLMEvalKit's.
    Raises:
        ReadError: there is neither.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ReadError(f"{path}: no such file or folder")
    candidates = [_vlmevalkit_file(benchmark, path), _upstream_place(benchmark, path)]
    if rules == "internvl":
        candidates.reverse()
    place = next(filter(None, candidates), None)
    if place is None:
        names = filter(None, (benchmark.file, benchmark.upstream and benchmark.upstream.file))
        raise ReadError(f"{path}: the folder holds no data of {benchmark.name}: {' or '.join(names)}")
    return place


def _vlmevalkit_file(benchmark: Benchmark, folder: Path) -> Path | None:
    file = benchmark.file and folder / benchmark.file
    return file if file and file.is_file() else None


def _upstream_place(benchmark: Benchmark, folder: Path) -> Path | None:
    task = benchmark.upstream
    if task is None:
        return None
    if Path(task.file).suffix:  # a file of upstream's `data/`, or its name in its own folder
        candidates = [folder / task.file, folder / Path(task.file).name]
        return next((file for file in candidates if file.is_file()), None)
    patterns = [f"{part}.jsonl" for part in task.parts] or _FOLDERS[task.reader]
    candidates = [folder / task.file, folder]
    return next((place for place in candidates if any(any(place.glob(pattern)) for pattern in patterns)), None)


# Files that a folder of upstream's data holds, by reader.
_FOLDERS = {
    "mme": ("*.txt", "Your_Results/*.txt"),
    "mvbench": ("json/*.json", "*.json"),
    "parquet": ("**/*.parquet",),
}
