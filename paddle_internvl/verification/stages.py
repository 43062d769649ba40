"""Stage-by-stage comparison of two checkpoint folders on one question about one picture.

In: checkpoint folders, a picture, a question. Out: named arrays in the order of computation, and a result for each.
`reference` computes the same stages with transformers on torch.

    tiles, pixel_values, prompt, vit.embed, vit.block.{i}, shuffle, projector, embeds, dec.block.{i}, dec.norm, logits,
    tokens
"""

from __future__ import annotations

from collections.abc import Callable
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

Stages = dict[str, np.ndarray]
OnStage = Callable[[str, np.ndarray], None]

# Bounds of a stage's relative error. With equal weights only the order of sums differs. Rounded weights change the
# stages from the first rounded part on; these bounds hold on the measured models (README, "How it was checked").
EXACT = 2e-5
_ROUNDED = {"dtype": 3e-2, "weight_only_int8": 0.1, "weight_only_int4": 0.7, "awq": 0.7}
_INPUTS = ("tiles", "pixel_values", "prompt")
_NOT_QUANTIZED = (*_INPUTS, "vit.", "shuffle", "projector", "embeds")


@dataclass(frozen=True)
class StageResult:
    """Comparison of one stage.

    Attributes:
        stage: its name.
        shape: of its array.
        error: the larger of max|a - b| / max|b| and |a - b| / |b| (Euclidean); inf if the shapes differ or a value is
            not finite; 0 or 1 for ids.
        bound: of the error; None: not judged.
    """

    stage: str
    shape: tuple[int, ...]
    error: float
    bound: float | None

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound."""
        return self.bound is None or self.error <= self.bound


def _ignore(name: str, stage: np.ndarray) -> None:
    """Stages are looked at when all are computed."""


def sample_picture() -> Image.Image:
    """A fixed picture of 640 x 420 pixels with gradients, grain and shapes, so that no tile is empty."""
    x, y = np.meshgrid(np.linspace(0, 230, 640), np.linspace(0, 230, 420))
    grain = np.random.default_rng(0).integers(0, 24, (420, 640))
    picture = Image.fromarray(np.stack([x + grain, y + grain, (x + y) / 2 + grain], -1).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 60, 240, 240), fill=(214, 40, 40))
    draw.rectangle((380, 180, 600, 380), fill=(40, 84, 214))
    return picture


def capture_stages(
    folder: Path, picture: Image.Image, question: str, max_new_tokens: int, on_stage: OnStage = _ignore, **options
) -> Stages:
    """All stages of a checkpoint's answer to a question about a picture.

    Args:
        folder: the checkpoint.
        picture: to ask about.
        question: text, without a picture's mark.
        max_new_tokens: number of generated tokens; end tokens do not stop.
        on_stage: called with the name and array of each stage as soon as it is computed.
        options: further arguments of `from_pretrained`.
    Returns:
        Stage -> array.
    Raises:
        ValueError (CheckpointError): the folder holds no InternVL chat model, or can't be loaded.
    """
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(str(folder), **options)
    if not hasattr(model, "chat"):
        raise ValueError(f"{folder} holds a {type(model).__name__}; verify compares whole InternVL chat models")
    stages: Stages = {}

    def add(name: str, stage: np.ndarray) -> None:
        stages[name] = stage
        on_stage(name, stage)

    def add_computed(name: str, stage: paddle.Tensor) -> None:
        if name not in stages:  # the pixels are there
            add(name, stage.astype("float32").numpy())

    for name, stage in _model_inputs(model, AutoTokenizer.from_pretrained(str(folder)), picture, question).items():
        add(name, stage)
    pixels = paddle.to_tensor(stages["pixel_values"])
    group, settings = model.process_group, GenerationConfig(max_new_tokens=max_new_tokens)
    with paddle.no_grad(), nullcontext() if group is None else group.collectives.allowed():  # on every rank
        with capture(model, add_computed):
            embeds = model.embed(paddle.to_tensor(stages["prompt"]), model.extract_feature(pixels))
            model.language_model(inputs_embeds=embeds)
        tokens, _ = generate_ids(model.language_model, embeds, None, settings, pad_token_id=0)
    add("tokens", tokens)
    return stages


def _model_inputs(model, tokenizer, picture: Image.Image, question: str) -> Stages:
    """The stages 'tiles' uint8 [T, S, S, 3], 'pixel_values' float32 [T, 3, S, S] and 'prompt' int64 [1, L]."""
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
    """Difference between two folders' weights: 'nothing', 'dtype', or the quantisation method of fewest bits."""
    configs = [read_config(folder) for folder in (one, other)]
    quantizations = [declared_quantization(config) for config in configs]
    if quantizations[0] != quantizations[1]:
        return min(filter(None, quantizations), key=lambda quantization: quantization.bits).method
    return "nothing" if len({config.get("torch_dtype") for config in configs}) == 1 else "dtype"


def compare_stages(reference: Stages, candidate: Stages, difference: str) -> list[StageResult]:
    """Compare stages in the order of computation.

    Args:
        reference: right by definition; may lack the model's inputs.
        candidate: compared with it. A stage that only one of both has is out of any bound.
        difference: of their weights, see `difference`.
    Returns:
        A result for each stage.
    """
    return [
        compare_stage(name, reference.get(name), candidate.get(name), difference)
        for name in dict.fromkeys([*candidate, *reference])
        if name in reference or name not in _INPUTS
    ]


def compare_stage(
    name: str, reference: np.ndarray | None, candidate: np.ndarray | None, difference: str
) -> StageResult:
    """Compare one stage, which at most one side lacks. Arguments: see `compare_stages`."""
    shape = (candidate if reference is None else reference).shape
    return StageResult(name, shape, relative_error(candidate, reference), _bound(name, difference))


def relative_error(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Error of a beside b, see `StageResult.error`; inf if one is None."""
    if a is None or b is None or a.shape != b.shape:
        return float("inf")
    if a.dtype.kind in "iu":
        return float(not np.array_equal(a, b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    delta = a - b
    if not np.isfinite(delta).all():
        return float("inf")
    tiny = np.finfo(np.float64).tiny
    worst = np.abs(delta).max() / max(np.abs(b).max(), tiny)
    return float(max(worst, np.linalg.norm(delta) / max(np.linalg.norm(b), tiny)))


def _bound(stage: str, difference: str) -> float | None:
    """A stage's bound; tokens are not judged where weights are rounded, since an answer may change its words."""
    if difference == "nothing" or stage.startswith(_INPUTS if difference == "dtype" else _NOT_QUANTIZED):
        return EXACT
    return None if stage == "tokens" else _ROUNDED[difference]
