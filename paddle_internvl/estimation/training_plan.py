"""Plan of a training run, which an estimate of its memory is made of: read from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Upstream's defaults of the recipe's arguments that memory depends on.
_MAX_SEQ_LENGTH, _MAX_PACKED_TOKENS, _NUM_IMAGES, _MAX_PATCHES, _DROPOUT = 8192, 8192, 40, 12, 0.05

STAGES = {"": 0, "False": 0, "True": 1, "stage1": 1, "stage2": 2, "stage3": 3}  # of the argument `sharding`
MOMENT_BYTES, MASTER_BYTES = 8, 4  # of a trained number: AdamW's two moments; the float32 weight of a bfloat16 one


@dataclass(frozen=True)
class TrainPlan:
    """Plan of a training run: its micro-batch, what is trained, and the cards.

    Attributes:
        rows: samples of a micro-batch on one card, pairs of 'mpo', or 1 pack.
        length: tokens of each row; a pair has two of them.
        tiles: tiles of each sample or pair.
        accumulation: micro-batches of an optimizer step.
        gpus: cards, each with a micro-batch of its own.
        sharding: 0: none; 1: the optimizer state is sharded over the cards; 2: gradients too; 3: weights too.
        recompute: whether layers keep their inputs alone for the backward pass.
        dtype: 'bfloat16', with float32 master weights, or 'float32'.
        device: 'gpu', or 'cpu', which trains in float32.
        freeze_llm: the language model is not trained.
        freeze_backbone: the vision tower is not trained.
        freeze_mlp: the projector is not trained.
        unfreeze_vit_layers: layers of a frozen vision tower that are trained, as `set_trainable` takes them.
        unfreeze_lm_head: the output head of a frozen language model is trained.
        use_llm_lora: LoRA rank in the language model; 0: none.
        use_backbone_lora: LoRA rank in the vision tower; 0: none.
        lora_dropout: dropout of the adapters' inputs.
        method: 'sft' or 'mpo'.
        reference_model: whether 'mpo' has a frozen copy of the trained parameters, its reference model.
        bits: 8 or 4, of the language model's frozen linear weights under adapters (QLoRA); None: as dtype.
    Raises:
        ValueError: a number out of its range.
    """

    rows: int = 1
    length: int = _MAX_SEQ_LENGTH
    tiles: int = _MAX_PATCHES + 1
    accumulation: int = 1
    gpus: int = 1
    sharding: int = 0
    recompute: bool = False
    dtype: str = "bfloat16"
    device: str = "gpu"
    freeze_llm: bool = False
    freeze_backbone: bool = False
    freeze_mlp: bool = False
    unfreeze_vit_layers: int = 0
    unfreeze_lm_head: bool = False
    use_llm_lora: int = 0
    use_backbone_lora: int = 0
    lora_dropout: float = _DROPOUT
    method: str = "sft"
    reference_model: bool = True
    bits: int | None = None

    def __post_init__(self):
        for name in ("rows", "length", "accumulation", "gpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not above 0")
        if self.method not in ("sft", "mpo"):
            raise ValueError(f"method={self.method!r}; supported: sft, mpo")
        if self.sharding not in range(4):
            raise ValueError(f"sharding stage {self.sharding} does not exist; stages: 1, 2, 3")

    @classmethod
    def from_recipe(
        cls, recipe: Mapping, *, gpus: int = 1, device: str = "gpu", max_patches: int = _MAX_PATCHES, **overrides
    ) -> TrainPlan:
        """The plan of a recipe, with samples as long as it allows.

        Args:
            recipe: arguments of a training run by name.
            gpus: cards.
            device: 'gpu' or 'cpu'.
            max_patches: the checkpoint's `max_dynamic_patch`.
            overrides: fields of this class in place of the recipe's; None: the recipe's.
        """
        packed = recipe.get("use_packed_ds", False)
        patches = recipe.get("max_dynamic_patch", max_patches)
        thumbnail = recipe.get("use_thumbnail", True) and patches > 1
        fields = {
            "rows": recipe.get("per_device_train_batch_size", 8),  # PaddleNLP's default
            "length": recipe.get("max_seq_length", _MAX_SEQ_LENGTH),
            "tiles": patches + thumbnail if recipe.get("dynamic_image_size", True) else 1,
            "accumulation": recipe.get("gradient_accumulation_steps", 1),
            "sharding": _stage(recipe.get("sharding", "")) if gpus > 1 else 0,
            "dtype": "bfloat16" if recipe.get("bf16", False) else "float32",
        }
        if (overrides.get("method") or recipe.get("method")) == "mpo":
            stored = recipe.get("reference_free", False) or recipe.get("reference_log_probs") is not None
            fields |= {"method": "mpo", "reference_model": not stored, "lora_dropout": 0.0}  # as `Recipe.from_dict`
        fields["bits"] = next((bits for bits in (8, 4) if recipe.get(f"load_in_{bits}bit", False)), None)
        if packed:
            fields["rows"], fields["length"] = 1, recipe.get("max_packed_tokens", _MAX_PACKED_TOKENS)
            fields["tiles"] = recipe.get("num_images_expected", _NUM_IMAGES)
        names = (
            "recompute", "freeze_llm", "freeze_backbone", "freeze_mlp", "unfreeze_vit_layers", "unfreeze_lm_head",
            "use_llm_lora", "use_backbone_lora", "lora_dropout",
        )  # fmt: skip
        fields |= {name: recipe[name] for name in names if name in recipe}
        fields |= {name: value for name, value in overrides.items() if value is not None}
        return cls(gpus=gpus, device=device, **fields)

    @property
    def texts(self) -> int:
        """Rows of tokens of a micro-batch: of 'mpo' a chosen and a rejected answer of each pair."""
        return self.rows * 2 if self.method == "mpo" else self.rows

    @property
    def low_precision(self) -> bool:
        """Whether weights and gradients are bfloat16."""
        return self.device == "gpu" and self.dtype == "bfloat16"

    @property
    def number_bytes(self) -> int:
        """Bytes of a number in weights, gradients and activations."""
        return 2 if self.low_precision else 4


def _stage(sharding) -> int:
    """Number of PaddleNLP's sharding argument: 'stage1', 'stage2 offload', True (stage 1) or ''."""
    first = str(sharding or "").partition(" ")[0]
    if first not in STAGES:
        raise ValueError(f"sharding={sharding!r} is not supported; use stage1, stage2 or stage3")
    return STAGES[first]
