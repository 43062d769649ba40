"""Pictures of a prompt: opened by `media`, doubled where the toolkit doubles them, and their tile grids."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from paddle_internvl.evaluation.clips import read_frames
from paddle_internvl.evaluation.prompts import Prompt, PromptError
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.grid import TILE_SIDE, TileGrid, choose_grid


def open_pictures(prompt: Prompt) -> list[Image.Image]:
    """RGB pictures, or the frames of the clip, of a prompt in the order of its marks.

    Raises:
        PromptError: a picture is missing or broken; names the row.
    """
    try:
        if prompt.clip is not None:
            return read_frames(prompt.clip, len(prompt.limits), prompt.spread)
        pictures = [open_image(source) for source in prompt.pictures]
    except (OSError, ValueError) as error:
        raise PromptError(prompt.index, error) from None
    if prompt.doubled and pictures:
        first = pictures[0]
        pictures[0] = first.resize((first.width * 2, first.height * 2), Image.Resampling.BILINEAR)
    return pictures


def tile_grids(
    prompt: Prompt, pictures: Sequence[Image.Image], side: int = TILE_SIDE, thumbnail: bool = True
) -> list[TileGrid]:
    """Tile grid of each picture.

    Args:
        prompt: gives the limits.
        pictures: see `open_pictures`.
        side: S, the tile side in pixels.
        thumbnail: whether the whole picture is one more tile of several, as always in VLMEvalKit's wrapper.
    """
    return [choose_grid(*picture.size, 1, limit, side, thumbnail) for picture, limit in zip(pictures, prompt.limits)]


def tile_counts(prompt: Prompt, side: int = TILE_SIDE, thumbnail: bool = True) -> list[int] | None:
    """Number of tiles of each picture or frame; None where the file of a picture is missing.

    Args:
        prompt, side, thumbnail: see `tile_grids`.
    """
    if prompt.clip is not None:
        return [1] * len(prompt.limits)
    if any(isinstance(source, Path) and not source.exists() for source in prompt.pictures):
        return None
    return [grid.tiles for grid in tile_grids(prompt, open_pictures(prompt), side, thumbnail)]
