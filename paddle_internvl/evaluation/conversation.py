"""Conversation of a prompt: OpenAI-style messages that a checkpoint in this process or a server takes.

In: a `Prompt`. Out: the system message, if the prompt has one, and one user's message: its text with LMDeploy's marks,
its pictures with their tile limits.
"""

from __future__ import annotations

import io

from PIL import Image

from paddle_internvl.evaluation.prompts import Prompt, PromptError
from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER, IMAGE_TOKEN


def messages_of(
    prompt: Prompt, pictures: list[Image.Image], thumbnail: bool | None = None, as_urls: bool = False
) -> list[dict]:
    """Messages of a prompt.

    Args:
        prompt: of an item.
        pictures: the item's pictures or frames, opened.
        thumbnail: whether a picture of several tiles has a thumbnail, too; None: as the config says.
        as_urls: pictures as data URLs of PNG files, for a server; False: as they are.
    Raises:
        PromptError: the prompt's marks can't be told from its text, or one mark stands for several pictures.
    """
    marks = prompt.text.count(IMAGE_PLACEHOLDER)
    if prompt.joined and len(pictures) > 1:
        raise PromptError(prompt.index, "one mark stands for all pictures, which `eval run` can't send")
    if marks != len(pictures):
        raise PromptError(prompt.index, f"{marks} {IMAGE_PLACEHOLDER} marks but {len(pictures)} pictures")
    options = {} if thumbnail is None else {"use_thumbnail": thumbnail}
    parts = [
        _part(picture, {"max_dynamic_patch": limit, **options}, as_urls)
        for picture, limit in zip(pictures, prompt.limits, strict=True)
    ]
    text = {"type": "text", "text": prompt.text.replace(IMAGE_PLACEHOLDER, IMAGE_TOKEN)}
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return [*system, {"role": "user", "content": [*parts, text]}]


def _part(picture: Image.Image, options: dict, as_urls: bool) -> dict:
    if not as_urls:
        return {"type": "image", "image": picture, **options}
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    url = encode_data_url(stream.getvalue(), "image/png")
    return {"type": "image_url", "image_url": {"url": url, **options}}
