"""LoRA targets: the linear layers, as upstream's layers and as ours.

In: a config.json in upstream's spelling. Out: `LoraTarget`s and their rules. They are derived from the tables of the
weights: the rows of a fused layer go where its weight's rows go. Upstream adapts every linear layer of a block; PEFT
and ms-swift can adapt the projector and the head too.

Source: upstream `modeling_internvl_chat.py`, `wrap_backbone_lora` and `wrap_llm_lora`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from convert.mappings import language, projector, vision
from convert.mappings.experts import is_router
from convert.rules import Rule, Split, Transpose, linear


@dataclass(frozen=True)
class LoraTarget:
    """A linear layer of upstream that LoRA adapts.

    Attributes:
        upstream: its name.
        ours: names of our layers that hold its rows; they share one matrix A.
        weight: rule of its weight.
    """

    upstream: str
    ours: tuple[str, ...]
    weight: Rule

    @property
    def tower(self) -> str:
        """'language_model', 'vision_model' or 'mlp1'."""
        return self.upstream.partition(".")[0]

    @property
    def in_block(self) -> bool:
        """Whether the layer belongs to a block of the language model or the vision tower, where upstream adapts it, and
        is no router."""
        return ".layers." in self.upstream and not is_router(self.upstream)

    @property
    def suffix(self) -> str:
        """Its name within a block, or its whole name, as in PEFT's `target_modules`."""
        return self.upstream.partition(".layers.")[2].partition(".")[2] or self.upstream

    def rules(self, rank: int) -> tuple[Rule, Rule]:
        """Rules of A (upstream's [r, in], of the first of our layers) and of B (upstream's [out, r])."""
        outputs, inputs = self.weight.shapes[0]
        a = linear(f"{self.upstream}.lora_A.weight", f"{self.ours[0]}.lora_A", (rank, inputs))
        names = tuple(f"{name}.lora_B" for name in self.ours)
        b = replace(self.weight, upstream=(f"{self.upstream}.lora_B.weight",), ours=names, shapes=((outputs, rank),))
        return a, b


def lora_targets(config: dict) -> list[LoraTarget]:
    """The targets of a model: every linear layer of language model, vision tower and projector.

    Args:
        config: config.json, with `llm_config` and `vision_config` as dicts.
    """
    targets = []
    tables = vision.rules(config["vision_config"]), language.rules(config["llm_config"]), projector.rules(config)
    for rule in chain(*tables):
        if isinstance(rule, (Split, Transpose)) and len(rule.shapes[0]) == 2:
            upstream, *ours = (name.removesuffix(".weight") for name in (*rule.upstream, *rule.ours))
            targets.append(LoraTarget(upstream, tuple(ours), rule))
    return targets
