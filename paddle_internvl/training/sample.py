"""Training samples: an annotation item to token ids, labels and tiles.

In: an annotation item, a tokenizer, `DataArguments`. Out: a sample dict (`SampleBuilder.build`).
Source: upstream `internvl_chat_finetune.py`, `LazySupervisedDataset.__getitem__` and the functions that it calls.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_internvl.media.images import open_image
from paddle_internvl.media.video import open_source
from paddle_internvl.preprocess.frames import interval_frames
from paddle_internvl.preprocess.pixels import normalize_all
from paddle_internvl.preprocess.tiles import dynamic_preprocess
from paddle_internvl.preprocess.video import Clip
from paddle_internvl.prompt.encode import IGNORED, encode
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
from paddle_internvl.training.arguments import DataArguments
from paddle_internvl.training.conversations import training_conversation
from paddle_internvl.training.mixture import DatasetSpec

_FRAME_NUMBER = re.compile(r"_(\d+)\.jpe?g$", re.IGNORECASE)
_JPEG_QUALITIES = (75, 101)
_PAD_POSITION = 1  # upstream's position of padding


class SampleBuilder:
    """Builds the samples of one checkpoint and one set of arguments. Thread-safe.

    Args:
        tokenizer: of the checkpoint.
        config: `InternVLChatConfig` of the checkpoint.
        arguments: of the data.
    """

    def __init__(self, tokenizer, config, arguments: DataArguments):
        self.tokenizer, self.arguments = tokenizer, arguments
        self.side, self.tokens_per_tile = config.tile_side, config.num_image_token
        self._context = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)

    def build(self, dataset: DatasetSpec, item: Mapping, rng: np.random.Generator, pixels: bool = True) -> dict:
        """A sample of an annotation item.

        Args:
            dataset: of the item.
            item: annotation item: `conversations`, and `image` or `video`.
            rng: of the random choices: frames of a clip, JPEG qualities.
            pixels: False leaves `pixel_values` out; tiles are counted all the same.
        Returns:
            input_ids, labels (-100 where nothing is learnt, not shifted), position_ids: int64 [L].
            num_tiles: number of tiles of each picture or frame.
            image_flags: int64 [T], 0 for the dummy tile of a text sample.
            pixel_values: float32 [T, 3, S, S].
        Raises:
            ValueError: an item that makes no sample; the message gives the reason.
            FileNotFoundError: a picture or a clip that does not exist.
        """
        (text,), media = self.build_texts(dataset, item, [item.get("conversations")], rng, pixels)
        return {**text, **media}

    def build_texts(
        self,
        dataset: DatasetSpec,
        item: Mapping,
        conversations: Sequence,
        rng: np.random.Generator,
        pixels: bool = True,
    ) -> tuple[list[dict], dict]:
        """Several conversations about the pictures or the clip of one annotation item, which are read once.

        Args:
            dataset: see `build`.
            item: annotation item: `image` or `video`, or neither.
            conversations: of the item, each as upstream's `conversations`.
            rng: see `build`.
            pixels: see `build`.
        Returns:
            For each conversation input_ids, labels and position_ids. And num_tiles, image_flags and pixel_values.
        Raises:
            ValueError: see `build`.
        """
        pictures, frames = self._pictures(dataset, item, rng)
        limit = dataset.max_dynamic_patch or self.arguments.max_dynamic_patch
        tiles = [self._tiles(picture, limit, len(pictures), frames is not None) for picture in pictures]
        num_tiles = [len(part) for part in tiles]
        texts = [self._encode(conversation, num_tiles, frames) for conversation in conversations]
        flat = [tile for part in tiles for tile in part]
        media = {"num_tiles": num_tiles, "image_flags": np.ones(len(flat), np.int64)}
        if not flat:  # keeps the vision tower in the graph
            flat = [Image.new("RGB", (self.side, self.side), (255, 255, 255))]
            media["image_flags"] = np.zeros(1, np.int64)
        if pixels:
            if dataset.data_augment and frames is None:
                flat = [_jpeg(tile, int(rng.integers(*_JPEG_QUALITIES))) for tile in flat]
            media["pixel_values"] = normalize_all(flat, self.side)
        return texts, media

    def _pictures(self, dataset: DatasetSpec, item: Mapping, rng) -> tuple[list[Image.Image], int | None]:
        """RGB pictures or frames of an item, and the number of frames of a clip."""
        images, clip = item.get("image") or [], item.get("video")
        if images and clip:
            raise ValueError("a sample has an image or a video, not both")
        if clip:
            frames = _read_frames(dataset.root / clip, item.get("clip"), self.arguments, rng)
            return frames, len(frames)
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, Sequence) or not all(isinstance(name, str) for name in images):
            raise ValueError("image: a path or a list of paths is needed")
        return [open_image(os.path.join(dataset.root, name)) for name in images], None

    def _tiles(self, picture: Image.Image, limit: int, pictures: int, is_frame: bool) -> list[Image.Image]:
        """Tiles of one picture; several pictures share the limit, and a frame is one tile."""
        arguments = self.arguments
        if is_frame or not arguments.dynamic_image_size:
            return [picture]
        limit = max(1, limit // pictures)
        return dynamic_preprocess(
            picture, min(arguments.min_dynamic_patch, limit), limit, self.side, arguments.use_thumbnail
        )

    def _encode(self, items, num_tiles: list[int], frames: int | None) -> dict:
        conversation = training_conversation(self.arguments.conv_style, items, len(num_tiles), frames)
        encoded = encode(self.tokenizer, conversation, [tiles * self.tokens_per_tile for tiles in num_tiles])
        ids, labels = np.array(encoded.ids, np.int64), np.array(encoded.labels(), np.int64)
        ids, labels = self._truncated(ids, labels, sum(num_tiles))
        if not (labels != IGNORED).any():
            raise ValueError("nothing is learnt from it: no token of an answer is left")
        positions = np.arange(len(ids))
        if not self.arguments.group_by_length:  # upstream pads to the maximum
            padding = self.arguments.max_seq_length - len(ids)
            ids = np.pad(ids, (0, padding), constant_values=self.tokenizer.pad_token_id)
            labels = np.pad(labels, (0, padding), constant_values=IGNORED)
            positions = np.pad(positions, (0, padding), constant_values=_PAD_POSITION)
        return {"input_ids": ids, "labels": labels, "position_ids": positions}

    def _truncated(self, ids: np.ndarray, labels: np.ndarray, tiles: int) -> tuple[np.ndarray, np.ndarray]:
        limit = self.arguments.max_seq_length
        if len(ids) <= limit:
            return ids, labels
        if not self.arguments.truncation:
            raise ValueError(
                f"{len(ids)} tokens are more than max_seq_length={limit}; raise it, lower max_dynamic_patch, "
                "or set truncation=True"
            )
        ids, labels = ids[:limit], labels[:limit]
        slots = int((ids == self._context).sum())
        if slots != tiles * self.tokens_per_tile:
            raise ValueError(
                f"truncation to max_seq_length={limit} cuts into the pictures: {slots} of "
                f"{tiles * self.tokens_per_tile} visual tokens are left"
            )
        return ids, labels


def _read_frames(path: Path, bound, arguments: DataArguments, rng) -> list[Image.Image]:
    """Frames of a clip, as many as a random number from `min_num_frame` to `max_num_frame`."""
    number = int(rng.integers(arguments.min_num_frame, arguments.max_num_frame + 1))
    source = path
    if path.is_dir():
        source = sorted(
            (file for file in path.iterdir() if _FRAME_NUMBER.search(file.name)),
            key=lambda file: int(_FRAME_NUMBER.search(file.name)[1]),
        )
        if not source:
            raise ValueError(f"{path} holds no frames named …_<number>.jpg")
    with open_source(source) as clip:
        first, length = _bounds(clip, bound, path)
        indices = first + interval_frames(number, length, arguments.sampling_method, rng)
        return clip.read(indices.tolist())


def _bounds(clip: Clip, bound, path: Path) -> tuple[int, int]:
    """First frame and number of frames of a clip within [start, end] in seconds."""
    if bound is None:
        return 0, clip.frames
    start, end = bound
    first, last = int(start * clip.fps), min(int(end * clip.fps), clip.frames)
    if not 0 <= first < last:
        raise ValueError(f"clip={bound} holds no frame of {path}, which has {clip.frames / clip.fps:.2f} s")
    return first, last - first


def _jpeg(tile: Image.Image, quality: int) -> Image.Image:
    """A tile with the artefacts of JPEG. Source: upstream `dataset.py`, `simulate_jpeg_degradation`."""
    buffer = io.BytesIO()
    tile.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
