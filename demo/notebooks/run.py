"""Execute the notebooks and keep their outputs.

    python -m demo.notebooks.run                 # all of them
    python -m demo.notebooks.run 02 05           # those whose names begin so

In: the .ipynb files of this folder, the only source of the notebooks. Out: the same files with new outputs. Each runs
in a temporary folder of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
_KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_COLUMNS = "120"  # width of printed tables: kept outputs must not depend on a terminal
CELL_TIMEOUT = 900  # seconds


def notebooks(*beginnings: str) -> list[Path]:
    """The notebook files whose names begin with one of these, or all.

    Args:
        beginnings: e.g. '02'.
    Raises:
        ValueError: no name begins so.
    """
    files = sorted(HERE.glob("*.ipynb"))
    for beginning in beginnings:
        if not any(file.name.startswith(beginning) for file in files):
            raise ValueError(f"no notebook begins with {beginning!r}; there are {', '.join(f.stem for f in files)}")
    return [file for file in files if file.name.startswith(beginnings or "")]


def execute(file: Path, folder: Path, kernel=None):
    """Execute a notebook.

    Args:
        file: the notebook.
        folder: working folder.
        kernel: a `jupyter_client.AsyncKernelManager` whose kernel is reset and used; None: a new kernel.
    Returns:
        An nbformat node with the outputs and neutral metadata.
    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; shows the cell and its traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    if kernel is not None:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}"))
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**os.environ, "COLUMNS": _COLUMNS})
    if kernel is not None:
        del notebook.cells[0]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output["data"].pop("image/jpeg", None)  # Pillow's second copy of a picture
    notebook.metadata.clear()
    notebook.metadata.update(_KERNEL)
    return notebook


def renew(file: Path) -> None:
    """Execute a notebook in a temporary folder and write it back."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        executed = execute(file, Path(folder))
    nbformat.write(executed, file)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NN", help="beginnings of names, e.g. 02 (default: all)")
    for file in notebooks(*parser.parse_args().names):
        start = time.monotonic()
        renew(file)
        print(f"{file.name}: {time.monotonic() - start:.1f} s, {file.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
