"""Pictures of a prompt: opened by `media`, doubled where the toolkit doubles them, and their tile grids."""

from collections.abc import Sequence

from PIL import Image

from paddle_internvl.evaluation.prompts import Prompt, PromptError
from paddle_internvl.media.images import open_image
from paddle_internvl.preprocess.grid import TILE_SIDE, TileGrid, choose_grid


def open_pictures(prompt: Prompt) -> list[Image.Image]:
    """RGB pictures of a prompt in the order of its marks.

    Raises:
        PromptError: a picture is missing or broken; names the row.
    """
    try:
        pictures = [open_image(source) for source in prompt.pictures]
    except (OSError, ValueError) as error:
        raise PromptError(f"row {prompt.index}: {error}") from None
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
