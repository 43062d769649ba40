"""LoRA targets: the linear layers of all blocks, as upstream's layers and as ours.

In: a config.json in upstream's spelling. Out: `LoraTarget`s and their rules. They are derived from the tables of the
weights: upstream adapts every linear layer of a block, and the rows of a fused layer go where its weight's rows go.

Source: upstream `modeling_internvl_chat.py`, `wrap_backbone_lora` and `wrap_llm_lora`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from convert.mappings import language, vision
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
        """'language_model' or 'vision_model'."""
        return self.upstream.partition(".")[0]

    @property
    def suffix(self) -> str:
        """Its name within a block, as in PEFT's `target_modules`."""
        return self.upstream.partition(".layers.")[2].partition(".")[2]

    def rules(self, rank: int) -> tuple[Rule, Rule]:
        """Rules of A (upstream's [r, in], of the first of our layers) and of B (upstream's [out, r])."""
        outputs, inputs = self.weight.shapes[0]
        a = linear(f"{self.upstream}.lora_A.weight", f"{self.ours[0]}.lora_A", (rank, inputs))
        names = tuple(f"{name}.lora_B" for name in self.ours)
        b = replace(self.weight, upstream=(f"{self.upstream}.lora_B.weight",), ours=names, shapes=((outputs, rank),))
        return a, b


def lora_targets(config: dict) -> list[LoraTarget]:
    """The targets of a model, language model and vision tower.

    Args:
        config: `llm_config` and `vision_config` as dicts.
    """
    targets = []
    for rule in [*vision.rules(config["vision_config"]), *language.rules(config["llm_config"])]:
        is_linear = isinstance(rule, (Split, Transpose)) and len(rule.shapes[0]) == 2
        if is_linear and ".layers." in rule.upstream[0]:
            upstream, *ours = (name.removesuffix(".weight") for name in (*rule.upstream, *rule.ours))
            targets.append(LoraTarget(upstream, tuple(ours), rule))
    return targets
