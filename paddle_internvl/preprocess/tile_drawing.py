"""Drawing of a picture's tile grid, and of a sheet with the visual tokens of each tile.

In: a PIL image and its `TileGrid`. Out: a new PIL image.
"""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from paddle_internvl.preprocess.grid import TileGrid

_LIGHT, _DARK = (255, 255, 255), (0, 0, 0)  # white on black is visible on any picture
_SIDE, _MARGIN = 896, 16  # pixels of a sheet: long side of its picture, and margin
_THUMBNAIL, _LETTERS = 256, 18


def draw_grid(image: Image.Image, grid: TileGrid, tokens: int | None = None) -> Image.Image:
    """A copy of a picture with the borders and numbers of its tiles.

    Tiles are numbered from 1, row by row, in the model's order. A single tile has no number, and a number that doesn't
    fit into its tile is left out.

    Args:
        image: PIL image.
        grid: of the picture.
        tokens: visual tokens of a tile, written under the number; None: numbers only.
    """
    picture = image.convert("RGB")
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    xs = [round(column * width / grid.columns) for column in range(grid.columns + 1)]
    ys = [round(row * height / grid.rows) for row in range(grid.rows + 1)]
    for color, stroke in ((_DARK, 3), (_LIGHT, 1)):
        for x in xs[1:-1]:
            draw.line((x, 0, x, height), fill=color, width=stroke)
        for y in ys[1:-1]:
            draw.line((0, y, width, y), fill=color, width=stroke)
    if grid.columns * grid.rows > 1 or tokens is not None:
        for index in range(grid.columns * grid.rows):
            row, column = divmod(index, grid.columns)
            _number(draw, (xs[column], ys[row], xs[column + 1], ys[row + 1]), index + 1, tokens)
    return picture


def draw_tiles(image: Image.Image, grid: TileGrid, tokens: int) -> Image.Image:
    """A sheet with the picture under its numbered tiles, its thumbnail, and the number of visual tokens.

    Args:
        image: PIL image.
        grid: of the picture.
        tokens: visual tokens of a tile.
    """
    width, height = image.size
    scale = _SIDE / max(width, height)
    shown = image.convert("RGB").resize((max(1, round(width * scale)), max(1, round(height * scale))))
    parts = [draw_grid(shown, grid, tokens)]
    if grid.thumbnail:
        parts.append(draw_grid(image.resize((_THUMBNAIL, _THUMBNAIL)), TileGrid(1, 1, False)))
        _number(ImageDraw.Draw(parts[1]), (0, 0, _THUMBNAIL, _THUMBNAIL), grid.tiles, tokens, "thumbnail")
    tiles = f"{grid.columns} x {grid.rows} tiles" if grid.columns * grid.rows > 1 else "1 tile"
    lines = (
        f"{width} x {height} pixels: {tiles}" + " and a thumbnail" * grid.thumbnail,
        f"{grid.tiles} x {tokens} = {grid.tiles * tokens} visual tokens",
    )
    letters = ImageFont.load_default(_LETTERS)
    words = max(round(letters.getlength(line)) for line in lines)
    wide = max(sum(part.width + _MARGIN for part in parts), words + _MARGIN) + _MARGIN
    tall = max(part.height for part in parts) + 2 * _MARGIN
    sheet = Image.new("RGB", (wide, tall + len(lines) * _LETTERS * 3 // 2 + _MARGIN), _LIGHT)
    x = _MARGIN
    for part in parts:
        sheet.paste(part, (x, _MARGIN))
        x += part.width + _MARGIN
    ImageDraw.Draw(sheet).text((_MARGIN, tall), "\n".join(lines), fill=_DARK, font=letters, spacing=_LETTERS // 2)
    return sheet


def _number(draw: ImageDraw.ImageDraw, tile: tuple, number: int, tokens: int | None, name: str = "") -> None:
    """Write a tile's number and visual tokens into its upper left corner, if there is room."""
    left, top, right, bottom = tile
    size = max(10, min(right - left, bottom - top, 160) // 8)
    letters = ImageFont.load_default(size)
    words = " ".join(filter(None, (str(number), name))) + (f"\n{tokens} tokens" if tokens is not None else "")
    x, y = left + 4, top + 4  # beside the border
    box = draw.multiline_textbbox((x + 2, y + 1), words, font=letters)
    if box[2] + 4 < right and box[3] + 4 < bottom:
        # Outlined letters: a filled label would hide what is behind it.
        draw.multiline_text((x + 2, y + 1), words, fill=_LIGHT, font=letters, stroke_width=2, stroke_fill=_DARK)
