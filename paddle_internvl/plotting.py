"""Plots: the only import of matplotlib (the extra `plots`), for every --plot.

In: the size of a figure. Out: a `matplotlib.figure.Figure`, and its file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

BLUE, RED, GREY, LIGHT, DARK = "#00629b", "#c0392b", "#6b7280", "#b0b7bf", "#1f2937"
SERIES = (BLUE, "#56a3c9", "#e08e45", "#7aa874", LIGHT, "#8d6cab")  # of parts that stand beside each other
ENDINGS = (".eps", ".jpeg", ".jpg", ".pdf", ".png", ".svg", ".tif", ".tiff", ".webp")
_DOTS_PER_INCH = 120


def require_matplotlib() -> None:
    """Check before a long computation that its figures can be drawn.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib; pip install 'paddle_internvl[plots]'")


def plot_file(path: str | Path) -> Path:
    """The path of a plot to be written, checked before a long computation.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the ending of a format that matplotlib does not write, or no such folder.
    """
    require_matplotlib()
    file = Path(path)
    if file.suffix.lower() not in ENDINGS:
        raise ValueError(f"{file} has the ending of no plot; use one of {', '.join(ENDINGS)}")
    if not file.absolute().parent.is_dir():
        raise ValueError(f"{file} can't be written: there is no folder {file.absolute().parent}")
    return file


def new_figure(width: float, height: float):
    """An empty `matplotlib.figure.Figure`, which lays its parts out itself.

    Args:
        width: in inches.
        height: in inches.
    Raises:
        ImportError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure, file: Path) -> Path:
    """Write a figure into a file, whose ending selects the format, and whose folder is made; returns the file."""
    from matplotlib import rc_context

    file.parent.mkdir(parents=True, exist_ok=True)
    # The same figure is the same SVG: no random ids, no date; its text is text, not paths.
    with rc_context({"svg.hashsalt": "paddle_internvl", "svg.fonttype": "none"}):
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=_DOTS_PER_INCH, metadata=metadata)
    return file
