"""MME's folder of upstream's script: a text file of questions for each task, and the pictures beside it."""

from collections.abc import Iterator
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark
from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.readers.errors import ReadError

_RELEASE = "MME_Benchmark_release_version"  # folder of the pictures
_QUESTIONS = "Your_Results"  # folder of the text files


def read_mme(benchmark: Benchmark, place: Path, pictures: bool = True) -> Iterator[Item]:
    """Items of `<task>.txt` (picture, question, answer, separated by tabs), with the index `<task>/<line from 0>`.

    Raises:
        ReadError: a line without three fields; names file and line.
    """
    folder = place / _QUESTIONS if (place / _QUESTIONS).is_dir() else place
    for file in [place] if place.is_file() else sorted(folder.glob("*.txt")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(filter(str.strip, lines)):
            fields = line.strip().split("\t")
            if len(fields) != 3:
                raise ReadError(f"{file}, line {number + 1}: {len(fields)} fields, not picture, question and answer")
            picture, question, answer = fields
            yield Item(
                f"{file.stem}/{number}", question, answer, category=file.stem,
                pictures=(_picture(file, picture),) if pictures else (),
                columns={"image_path": f"{file.stem}/{picture}"},
            )  # fmt: skip


def _picture(file: Path, name: str) -> Path:
    root = file.absolute().parent
    data = [parent / "data" / "mme" / _RELEASE for parent in root.parents]
    folders = [root, root.parent, root.parent / "images", root.parent / _RELEASE, root / _RELEASE, *data]
    candidates = [folder / file.stem / part / name for folder in folders for part in ("", "images")]
    default = root.parent / _RELEASE / file.stem / name
    return next((candidate for candidate in candidates if candidate.is_file()), default)
