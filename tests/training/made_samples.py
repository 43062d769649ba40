"""Samples made by hand for packing: letters, and pictures of a few tokens."""

import numpy as np

from paddle_internvl.training import PackedDataset

CONTEXT, START, END = 7, 8, 9  # ids of a picture's tokens in samples made by hand
TOKENS_PER_TILE = 4


def make_sample(index: int, *parts: int | str, learnt: int = 3) -> dict:
    """A sample of text ("abc": three tokens) and pictures (number of tiles); the text of its last tokens is learnt."""
    ids: list[int] = []
    for part in parts:
        picture = isinstance(part, int)
        ids += [START, *[CONTEXT] * (part * TOKENS_PER_TILE), END] if picture else [ord(letter) for letter in part]
    num_tiles = [part for part in parts if isinstance(part, int)]
    ids = np.array(ids, np.int64)
    tiles = max(1, sum(num_tiles))
    return {
        "input_ids": ids,
        "labels": np.where((np.arange(len(ids)) >= len(ids) - learnt) & (ids > END), ids, -100),
        "position_ids": np.arange(len(ids)),
        "num_tiles": num_tiles,
        "image_flags": np.full(tiles, bool(num_tiles), np.int64),
        "pixel_values": np.stack([np.full((3, 2, 2), 100 * index + t, np.float32) for t in range(tiles)]),
        "dataset": "d",
        "index": index,
    }


def pack_samples(
    samples, max_packed_tokens=40, num_images_expected=6, max_buffer_size=2, *, token_id=CONTEXT, **options
):
    options["img_context_token_id"] = token_id
    packed = PackedDataset(samples, max_packed_tokens, num_images_expected, max_buffer_size, **options)
    return packed, list(packed)


def random_samples(count: int) -> list[dict]:
    rng = np.random.default_rng(3)
    return [
        make_sample(i, *rng.choice([1, 2, 3], rng.integers(0, 3)).tolist(), "a" * int(rng.integers(5, 60)), learnt=5)
        for i in range(count)
    ]


def tile_numbers(pack) -> list[int]:
    return pack["pixel_values"][:, 0, 0, 0].astype(int).tolist()


def assert_equal_packs(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for field, value in left.items():
        np.testing.assert_array_equal(value, right[field], err_msg=field)
