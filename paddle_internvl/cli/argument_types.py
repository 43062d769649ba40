"""Argument types of the command line: a value that can't be is refused while the command is parsed, by its flag.

In: the text of a value. Out: the value, or argparse's error, which names the flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from paddle_internvl import plotting


def integer(least: int) -> Callable[[str], int]:
    """Type of whole numbers from `least` on."""

    def integer(text: str) -> int:  # argparse shows this name for other texts
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return integer


def number(least: float) -> Callable[[str], float]:
    """Type of numbers from `least` on."""

    def number(text: str) -> float:
        value = float(text)
        if not value >= least:  # not a number is refused too
            raise argparse.ArgumentTypeError(f"{value:g} is below {least:g}")
        return value

    return number


def boolean(text: str) -> bool:
    """Type of booleans, which are spelled True and False as upstream's."""
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text == "True"


def picture_file(text: str) -> Path:
    """Type of picture files to be written: their ending is one of Pillow's, their folder exists."""
    from PIL import Image

    file = Path(text)
    endings = sorted(ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE)
    if file.suffix.lower() not in endings:
        raise argparse.ArgumentTypeError(f"{file} has the ending of no picture; use .png, .jpg, .webp …")
    if not file.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{file} can't be written: there is no folder {file.absolute().parent}")
    return file


def plot_file(text: str) -> Path:
    """Type of plots to be written: see `plotting.plot_file`."""
    try:
        return plotting.plot_file(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
