"""What a folder computes for one question about one picture, stage by stage, and how far two such ladders are apart.

In: checkpoint folders, a picture, a question. Out: named arrays in the order of computation, and a verdict on each.
Knows no command line and no torch; `reference` climbs the same ladder with other code.

    tiles, pixel_values, prompt, vit.embed, vit.block.{i}, shuffle, projector, embeds, dec.block.{i}, dec.norm, logits,
    tokens
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from PIL import Image, ImageDraw

from convert.folder import read_config
from convert.quant_config import declared_quantization
from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import generate_ids
from paddle_internvl.preprocess.pixels import normalize_all
from paddle_internvl.preprocess.tiles import dynamic_preprocess
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER, IMG_CONTEXT
from paddle_internvl.prompt.templates import get_conv_template
from paddle_internvl.verification.capture import capture

Ladder = dict[str, np.ndarray]

# Largest relative error of a stage, by what differs between the two folders. With equal weights only the order of sums
# differs. Rounded weights move the stages from the first rounded part on, by no more than this on the models it was
# measured with (README, "How it was checked").
EXACT = 2e-5
_ROUNDED = {"dtype": 3e-2, "weight_only_int8": 0.1, "weight_only_int4": 0.7}
_INPUTS = ("tiles", "pixel_values", "prompt")
_NOT_QUANTIZED = (*_INPUTS, "vit.", "shuffle", "projector", "embeds")


@dataclass(frozen=True)
class Rung:
    """How one stage of two ladders compares.

    Attributes:
        error: the larger of max|a - b| / max|b| and |a - b| / |b| (Euclidean); inf where shapes differ or a value is
            not finite; of ids 0 or 1. bound: what it may be; None: shown, not judged.
    """

    stage: str
    shape: tuple[int, ...]
    error: float
    bound: float | None

    @property
    def holds(self) -> bool:
        return self.bound is None or self.error <= self.bound


def sample_picture() -> Image.Image:
    """A picture of 640 x 420 pixels, the same everywhere: gradients, grain and shapes, so that no tile is empty."""
    x, y = np.meshgrid(np.linspace(0, 230, 640), np.linspace(0, 230, 420))
    grain = np.random.default_rng(0).integers(0, 24, (420, 640))
    picture = Image.fromarray(np.stack([x + grain, y + grain, (x + y) / 2 + grain], -1).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 60, 240, 240), fill=(214, 40, 40))
    draw.rectangle((380, 180, 600, 380), fill=(40, 84, 214))
    return picture


def climb(folder: Path, picture: Image.Image, question: str, max_new_tokens: int, **how) -> Ladder:
    """Every stage of a folder's answer to a question about a picture; `max_new_tokens` are made, whatever they are.

    Args:
        how: further arguments of `from_pretrained`.
    Raises:
        ValueError (CheckpointError): the folder holds no InternVL chat model, or can't be loaded.
    """
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(str(folder), **how)
    if not hasattr(model, "chat"):
        raise ValueError(f"{folder} holds a {type(model).__name__}; verify compares whole InternVL chat models")
    ladder = _model_inputs(model, AutoTokenizer.from_pretrained(str(folder)), picture, question)
    pixels = paddle.to_tensor(ladder["pixel_values"])
    group, settings = model.process_group, GenerationConfig(max_new_tokens=max_new_tokens)
    with paddle.no_grad(), nullcontext() if group is None else group.collectives.allowed():  # on every rank
        with capture(model) as stages:
            embeds = model.embed(paddle.to_tensor(ladder["prompt"]), model.extract_feature(pixels))
            model.language_model(inputs_embeds=embeds)
        tokens, _ = generate_ids(model.language_model, embeds, None, settings, pad_token_id=0)
    ladder.update({name: stage.astype("float32").numpy() for name, stage in stages.items() if name not in ladder})
    return {**ladder, "tokens": tokens}


def _model_inputs(model, tokenizer, picture: Image.Image, question: str) -> Ladder:
    """Crops uint8 [T, S, S, 3], pixel_values float32 [T, 3, S, S] and prompt ids int64 [1, L], by its files."""
    config = model.config
    tiles = dynamic_preprocess(
        picture, config.min_dynamic_patch, config.max_dynamic_patch, config.tile_side, config.use_thumbnail
    )
    conversation = get_conv_template(model.template)
    conversation.system_message = model.system_message
    conversation.append_message(conversation.roles[0], f"{IMAGE_PLACEHOLDER}\n{question}")
    conversation.append_message(conversation.roles[1], None)
    ids = encode(tokenizer, conversation, [model.num_image_token * len(tiles)]).ids
    model.img_context_token_id = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    return {
        "tiles": np.stack([np.asarray(tile) for tile in tiles]),
        "pixel_values": normalize_all(tiles, config.tile_side),
        "prompt": np.array([ids]),
    }


def difference(one: Path, other: Path) -> str:
    """What sets two folders' weights apart: 'nothing', 'dtype', or the coarser weight-only method."""
    configs = [read_config(folder) for folder in (one, other)]
    methods = [quantization.method if quantization else "" for quantization in map(declared_quantization, configs)]
    coarser = [method for method in reversed(_ROUNDED) if method in methods]
    if coarser and methods[0] != methods[1]:
        return coarser[0]
    return "nothing" if len({config.get("torch_dtype") for config in configs}) == 1 else "dtype"


def compare(held_to: Ladder, checked: Ladder, what: str) -> list[Rung]:
    """`checked` against `held_to`, stage by stage in the order of computation; see `difference` for `what`.

    A stage that one of them lacks is out of any bound, except for inputs that `held_to` was given.
    """
    stages = dict.fromkeys([*checked, *held_to])
    return [
        Rung(
            name,
            held_to.get(name, checked.get(name)).shape,
            relative_error(checked.get(name), held_to.get(name)),
            _bound(name, what),
        )
        for name in stages
        if name in held_to or name not in _INPUTS
    ]


def relative_error(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return float("inf")
    if a.dtype.kind in "iu":
        return float(not np.array_equal(a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    apart = a - b
    if not np.isfinite(apart).all():
        return float("inf")
    tiny = np.finfo(np.float64).tiny
    worst = np.abs(apart).max() / max(np.abs(b).max(), tiny)
    return float(max(worst, np.linalg.norm(apart) / max(np.linalg.norm(b), tiny)))


def _bound(stage: str, what: str) -> float | None:
    """A stage's bound; rounded weights may say other words, so their tokens are shown and not judged."""
    if what == "nothing" or stage.startswith(_INPUTS if what == "dtype" else _NOT_QUANTIZED):
        return EXACT
    return None if stage == "tokens" else _ROUNDED[what]
