"""Recipe: the arguments of a training run, by upstream's names and those of PaddleNLP's TrainingArguments.

In: a dict, as a recipe's JSON holds it. Out: `Recipe`, whose fields are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from paddle_internvl.training.arguments import DataArguments
from paddle_internvl.training.assembly import AssemblyArguments

DECAY_RULES = ("all", "hf")


@dataclass(frozen=True)
class ModelArguments:
    """What is trained of a model.

    Attributes:
        freeze_llm: freeze the language model.
        freeze_backbone: freeze the vision tower.
        freeze_mlp: freeze the projector.
        unfreeze_vit_layers: last layers of a frozen vision tower that are trained, see `set_trainable`.
        unfreeze_lm_head: train the output head of a frozen language model.
        use_llm_lora: LoRA rank in the language model; 0: none.
        use_backbone_lora: LoRA rank in the vision tower; 0: none.
        lora_alpha: of both towers; None: twice each tower's rank, as upstream's.
        lora_dropout: dropout of the adapters' inputs.
        drop_path_rate: stochastic depth of the vision tower.
    """

    freeze_llm: bool = False
    freeze_backbone: bool = False
    freeze_mlp: bool = False
    unfreeze_vit_layers: int = 0
    unfreeze_lm_head: bool = False
    use_llm_lora: int = 0
    use_backbone_lora: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.05
    drop_path_rate: float = 0.0


@dataclass(frozen=True)
class RunArguments:
    """The order of the samples and the weight decay.

    Attributes:
        meta_path: meta JSON of the data sets; None: a data set is given.
        shuffle: False takes the samples in file order.
        decay_rule: 'all' decays every parameter, as upstream's DeepSpeed configs; 'hf' as transformers 4.37.
    """

    meta_path: str | None = None
    shuffle: bool = True
    decay_rule: str = "all"


@dataclass(frozen=True)
class Recipe:
    """Arguments of a training run.

    Attributes:
        assembly: of the model that the run begins with.
        model: of what is trained.
        run: of order and decay.
        data: fields of `DataArguments` that are given.
        trainer: fields of PaddleNLP's TrainingArguments that are given.
    """

    assembly: AssemblyArguments
    model: ModelArguments
    run: RunArguments
    data: Mapping = field(default_factory=dict)
    trainer: Mapping = field(default_factory=dict)

    @classmethod
    def from_dict(cls, config: Mapping) -> Recipe:
        """The arguments of a recipe.

        Raises:
            ValueError: an argument that neither upstream nor PaddleNLP has, or a value out of range.
        """
        from paddlenlp.trainer import TrainingArguments

        names = {
            kind: {f.name for f in fields(kind)}
            for kind in (AssemblyArguments, ModelArguments, RunArguments, DataArguments, TrainingArguments)
        }
        unknown = sorted(config.keys() - set().union(*names.values()))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no training argument of upstream or PaddleNLP")
        assembly, model, run, data = (
            _of(config, names[kind]) for kind in (AssemblyArguments, ModelArguments, RunArguments, DataArguments)
        )
        recipe = cls(
            AssemblyArguments(**assembly), ModelArguments(**model), RunArguments(**run), data,
            {name: value for name, value in config.items() if name in names[TrainingArguments] and name not in _SHARED},
        )  # fmt: skip
        if recipe.run.decay_rule not in DECAY_RULES:
            raise ValueError(f"decay_rule={recipe.run.decay_rule!r}; supported: {', '.join(DECAY_RULES)}")
        return recipe


_SHARED = ("group_by_length",)


def _of(config: Mapping, names: set[str]) -> dict:
    return {name: value for name, value in config.items() if name in names}
