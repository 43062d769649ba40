"""Planned requests of a load test: several kinds with Poisson arrivals, all drawn from one seed.

In: a rate, a mix, a seed. Out: request bodies as bytes, each with its arrival in seconds. Every text and picture is
different, so that no cache answers instead of the model. Opens no connection.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("text", "picture", "video")
_SIZES = ((448, 448), (672, 448), (448, 896), (640, 480), (1024, 768))  # pixels: 1 to 12 tiles
_FRAMES, _FRAME_SIDE = 4, 224
_SHAPES = ("ellipse", "rectangle")
_COLOURS = ("red", "green", "blue", "orange", "purple", "black", "yellow", "gray")
_WORDS = ("what", "one", "can", "see", "in", "the", "morning", "on", "a", "way", "from", "home", "to", "old", "harbour")
_QUESTIONS = {
    "text": "Continue:",
    "picture": "Describe the image.",
    "video": "What happens in the clip?",
}


@dataclass(frozen=True)
class Request:
    """A planned request.

    Attributes:
        at: arrival in seconds after the start.
        kind: one of `KINDS`.
        body: JSON.
    """

    at: float
    kind: str
    body: bytes


def parse_mix(text: str) -> dict[str, float]:
    """Shares of the kinds, from 'text=0.5,picture=0.4,video=0.1'; they are scaled to 1.

    Raises:
        ValueError: an unknown kind, or a share that is not a number of 0 or more.
    """
    mix: dict[str, float] = {}
    for item in text.split(","):
        kind, _, share = (word.strip() for word in item.partition("="))
        if kind not in KINDS:
            raise ValueError(f"mix: unknown kind {kind!r}; choose from {', '.join(KINDS)}")
        try:
            mix[kind] = float(share)
        except ValueError:
            raise ValueError(f"mix: the share of {kind} is {share!r}, which is not a number") from None
    total = sum(mix.values())
    if not (all(share >= 0 for share in mix.values()) and 0 < total < math.inf):
        raise ValueError(f"mix={text!r} is not valid: each share is 0 or more, one above 0")
    return {kind: share / total for kind, share in mix.items()}


def arrivals(rate: float, seed: int, requests: int | None = None, duration: float | None = None) -> list[float]:
    """Arrival times of a Poisson process, in seconds.

    Args:
        rate: requests per second.
        seed: of the draws.
        requests: number of requests; None: use `duration`.
        duration: seconds after which no request arrives; None: use `requests`.
    Raises:
        ValueError: a rate or an end that is not positive, both ends, or none.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"rate={rate} is not above 0")
    if (requests is None) == (duration is None):
        raise ValueError("give either a number of requests or a duration")
    if requests is not None and requests < 1 or duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"requests={requests}, duration={duration}: not above 0")
    random, times, now = np.random.default_rng([seed, 0]), [], 0.0
    while True:
        now += random.exponential(1 / rate)
        if duration is not None and now >= duration:
            return times
        times.append(now)
        if len(times) == requests:
            return times


def plan(times: list[float], mix: Mapping[str, float], seed: int, **fields) -> Iterator[Request]:
    """A request for each arrival; `fields` are further fields of the bodies."""
    kinds = np.random.default_rng([seed, 1]).choice(list(mix), size=len(times), p=list(mix.values()))
    for number, (at, kind) in enumerate(zip(times, kinds)):
        yield Request(at, str(kind), body(str(kind), number, seed, **fields))


def body(kind: str, number: int, seed: int, **fields) -> bytes:
    """Body of a streamed chat request; each number gives another one."""
    random = np.random.default_rng([seed, 2, number])
    text = f"{_QUESTIONS[kind]} ({number})"
    if kind == "text":
        text += " " + " ".join(random.choice(_WORDS, size=random.integers(8, 64)))
    content = [*_media(kind, random), {"type": "text", "text": text}]
    message = {"role": "user", "content": content}
    request = {"messages": [message], "stream": True, "stream_options": {"include_usage": True}, **fields}
    return json.dumps(request).encode()


def _media(kind: str, random: np.random.Generator) -> list[dict]:
    if kind == "picture":
        picture = _draw(_SIZES[random.integers(len(_SIZES))], random)
        return [{"type": "image_url", "image_url": {"url": _data_url([picture], "PNG")}}]
    if kind == "video":
        frames = [_draw((_FRAME_SIDE, _FRAME_SIDE), random) for _ in range(_FRAMES)]
        return [{"type": "video_url", "video_url": {"url": _data_url(frames, "GIF"), "num_frames": _FRAMES}}]
    return []


def _draw(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A few shapes on white."""
    picture = Image.new("RGB", size, "white")
    pencil = ImageDraw.Draw(picture)
    for _ in range(random.integers(2, 6)):
        corners = np.sort(random.integers(0, size, (2, 2)), axis=0)
        box = [*map(int, corners[0]), *map(int, corners[1] + 8)]
        getattr(pencil, _SHAPES[random.integers(len(_SHAPES))])(box, fill=_COLOURS[random.integers(len(_COLOURS))])
    return picture


def _data_url(pictures: list[Image.Image], form: str) -> str:
    file, first = io.BytesIO(), pictures[0]
    more = {"save_all": True, "append_images": pictures[1:], "duration": 250} if form == "GIF" else {}
    first.save(file, form, **more)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
