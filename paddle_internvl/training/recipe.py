"""Recipe: the arguments of a training run, by upstream's names and those of PaddleNLP's TrainingArguments.

In: a dict, as a recipe's JSON holds it. Out: `Recipe`, whose fields are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from paddle_internvl.training.arguments import DataArguments, PackingArguments, PreferenceArguments
from paddle_internvl.training.assembly import AssemblyArguments

METHODS = ("sft", "mpo")
DECAY_RULES = ("all", "hf")
ON_BAD_SAMPLE = ("error", "skip")
DTYPES = (None, "bfloat16", "float32")


@dataclass(frozen=True)
class ModelArguments:
    """What is trained of a model.

    Attributes:
        dtype: 'bfloat16', with float32 master weights in the optimizer, or 'float32'; None: 'bfloat16' with
            `bf16` True, else 'float32'. On a CPU always float32.
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
        router_aux_loss_coef: weight of the load-balancing loss of a mixture of experts; 0: no such loss; None: as
            config.json has it, where `output_router_logits` switches it on.
        load_in_8bit: quantize the frozen linear weights of the language model's blocks to 8 bits (QLoRA).
        load_in_4bit: quantize them to 4 bits.
    """

    dtype: str | None = None
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
    router_aux_loss_coef: float | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False


@dataclass(frozen=True)
class RunArguments:
    """The data sets, the order of the samples and the weight decay.

    Attributes:
        meta_path: meta JSON of the data sets; None: a data set is given.
        eval_meta_path: meta JSON of held-out data sets, whose loss is measured every `eval_steps` and at the end.
        eval_benchmarks: `NAME=PATH` of benchmarks that are evaluated every `eval_steps` and at the end; see `eval run`.
        shuffle: False takes the samples in file order.
        use_data_resampling: draw data sets by the square root of their sizes.
        on_bad_sample: 'error' stops at a bad sample; 'skip' leaves it out and lists it in OUTPUT/skipped.jsonl.
        decay_rule: 'all' decays every parameter, as upstream's DeepSpeed configs; 'hf' as transformers 4.37.
        plot: picture file of loss and learning rate, drawn at the end.
    """

    meta_path: str | None = None
    eval_meta_path: str | None = None
    eval_benchmarks: Sequence[str] = ()
    shuffle: bool = True
    use_data_resampling: bool = False
    on_bad_sample: str = "error"
    decay_rule: str = "all"
    plot: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Arguments of a training run.

    Attributes:
        assembly: of the model that the run begins with.
        model: of what is trained.
        run: of data sets, order and decay.
        packing: of packs.
        preference: of the preference losses, of method 'mpo'.
        data: fields of `DataArguments` that are given.
        trainer: fields of PaddleNLP's TrainingArguments that are given.
    """

    assembly: AssemblyArguments
    model: ModelArguments
    run: RunArguments
    packing: PackingArguments = PackingArguments()
    preference: PreferenceArguments = PreferenceArguments()
    data: Mapping = field(default_factory=dict)
    trainer: Mapping = field(default_factory=dict)

    @classmethod
    def from_dict(cls, config: Mapping, method: str = "sft") -> Recipe:
        """The arguments of a recipe.

        Args:
            config: arguments by name.
            method: 'sft' or 'mpo', which has preference losses, no packs, and no dropout unless it is given (as TRL).
        Raises:
            ValueError: an argument that neither upstream nor PaddleNLP has, or a value out of range.
        """
        from paddlenlp.trainer import TrainingArguments

        if method not in METHODS:
            raise ValueError(f"method={method!r}; supported: {', '.join(METHODS)}")
        if method == "mpo":
            config = {"lora_dropout": 0.0, **config}
        groups = (AssemblyArguments, ModelArguments, RunArguments, PackingArguments, PreferenceArguments)
        kinds = (*groups, DataArguments, TrainingArguments)
        names = {kind: {f.name for f in fields(kind)} for kind in kinds}
        preference = sorted(config.keys() & names[PreferenceArguments]) if method != "mpo" else ()
        if preference:
            raise ValueError(f"{preference[0]!r} is an argument of --method mpo")
        unknown = sorted(config.keys() - set().union(*names.values()))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no training argument of upstream or PaddleNLP")
        parts = [_of(config, names[kind]) for kind in kinds[:-1]]
        trainer = {name: config[name] for name in config if name in names[TrainingArguments] and name not in _SHARED}
        recipe = cls(*(kind(**values) for kind, values in zip(groups, parts)), parts[-1], trainer)
        for name, values in (("decay_rule", DECAY_RULES), ("on_bad_sample", ON_BAD_SAMPLE)):
            if getattr(recipe.run, name) not in values:
                raise ValueError(f"{name}={getattr(recipe.run, name)!r}; supported: {', '.join(values)}")
        recipe._check_evaluation()
        if recipe.model.dtype not in DTYPES:
            raise ValueError(f"dtype={recipe.model.dtype!r}; supported: bfloat16, float32")
        if method == "mpo" and recipe.packing.use_packed_ds:
            raise ValueError("use_packed_ds: preference pairs are not packed; leave it out")
        return recipe._for_packs() if recipe.packing.use_packed_ds else recipe

    def _check_evaluation(self) -> None:
        strategy = str(self.trainer.get("evaluation_strategy", "no"))
        if strategy not in ("no", "steps"):
            raise ValueError(f"evaluation_strategy={strategy!r}; supported: steps, by eval_steps")
        evaluated = self.run.eval_meta_path is not None or self.run.eval_benchmarks
        if not evaluated and (strategy == "steps" or self.trainer.get("eval_steps")):
            raise ValueError("eval_meta_path is needed for an evaluation, or eval_benchmarks")

    def _for_packs(self) -> Recipe:
        """The recipe with the defaults of packing: batches of one pack, samples that fit in a pack."""
        limit, batch_size = self.packing.max_packed_tokens, self.trainer.get("per_device_train_batch_size", 1)
        length = self.data.get("max_seq_length", min(DataArguments.max_seq_length, limit))
        if batch_size != 1:
            raise ValueError(f"per_device_train_batch_size={batch_size} with use_packed_ds; a batch is one pack: use 1")
        if self.trainer.get("max_steps", -1) < 1:
            raise ValueError("max_steps is needed with use_packed_ds: the number of packs is not fixed beforehand")
        if length > limit and not self.packing.allow_overflow:
            raise ValueError(
                f"max_seq_length={length} is more than max_packed_tokens={limit}; lower the first or raise the second, "
                "or split samples with allow_overflow"
            )
        data = {**self.data, "max_seq_length": length, "group_by_length": True}  # samples are not padded
        return replace(self, data=data, trainer={**self.trainer, "per_device_train_batch_size": 1})


_SHARED = ("group_by_length",)


def _of(config: Mapping, names: set[str]) -> dict:
    return {name: value for name, value in config.items() if name in names}
