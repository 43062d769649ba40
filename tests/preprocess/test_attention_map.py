"""Maps of visual tokens: each weight stands where the pixels of its token are."""

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.preprocess.attention_map import attention_map, draw_attention
from paddle_internvl.preprocess.grid import TileGrid
from paddle_internvl.preprocess.tiling import all_pixels

N = 4  # cells of a tile's side


def weights_by_place(grid: TileGrid, picture: np.ndarray, side: int = 8) -> np.ndarray:
    """The mean of the pixels of each visual token, in the order of the prompt."""
    (tiles,) = all_pixels([Image.fromarray(picture)], [grid], side, np.uint8)  # [T, 3, S, S]
    cells = tiles[:, 0].reshape(len(tiles), N, side // N, N, side // N).mean(axis=(2, 4))
    return cells.reshape(-1).astype(np.float32)


@pytest.mark.parametrize(
    "grid", [TileGrid(1, 1, False), TileGrid(3, 1, True), TileGrid(2, 3, True), TileGrid(1, 2, False)]
)
def test_each_weight_is_where_its_pixels_are(grid):
    cells = np.random.default_rng(0).integers(0, 255, (grid.rows * N, grid.columns * N), np.uint8)
    picture = np.repeat(np.repeat(cells, 2, axis=0), 2, axis=1)  # of the crops' size: nothing is scaled
    made = attention_map(weights_by_place(grid, np.stack([picture] * 3, axis=-1)), grid)
    np.testing.assert_array_equal(made.tiles, cells)
    assert (made.thumbnail is None) != grid.thumbnail
    if grid.thumbnail:  # the whole picture again, smaller: each cell is the mean of many
        means = cells.reshape(N, grid.rows, N, grid.columns).mean(axis=(1, 3))
        assert np.corrcoef(made.thumbnail.ravel(), means.ravel())[0, 1] > 0.9
    assert made.share == pytest.approx(made.tiles.sum() + (made.thumbnail.sum() if grid.thumbnail else 0))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_order_of_tokens_is_that_of_pixel_shuffle(version):
    import paddle

    from paddle_internvl.models.projector import pixel_shuffle

    rows, columns = np.mgrid[: 2 * N, : 2 * N]
    patches = paddle.to_tensor((rows // 2 * 100 + columns // 2).astype("float32")).reshape([1, 2 * N, 2 * N, 1])
    tokens = pixel_shuffle(patches, 0.5, version).reshape([N * N, -1]).numpy()
    assert (tokens == tokens[:, :1]).all()  # a token is a block of patches
    made = attention_map(tokens[:, 0], TileGrid(1, 1, False), transposed=version == "v1")
    np.testing.assert_array_equal(made.tiles, np.arange(N)[:, None] * 100 + np.arange(N))


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match="15 weights are not those of 1 square tiles"):
        attention_map(np.zeros(15, np.float32), TileGrid(1, 1, False))


def test_the_lightest_square_is_the_highest_weight():
    cells = np.zeros((2, 3), np.float32)
    cells[1, 2] = 0.5
    drawn = np.asarray(draw_attention(Image.new("RGB", (30, 20), "gray"), cells, 0.5).convert("L"), int)
    assert drawn[10:, 20:].min() > drawn[:10].max() + 50 and drawn[:10].std() == 0 and drawn[10:, :20].std() == 0
    dark = np.asarray(draw_attention(Image.new("RGB", (30, 20), "gray"), cells, 0.0).convert("L"))
    assert dark.std() == 0
