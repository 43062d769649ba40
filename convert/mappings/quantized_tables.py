"""Quantised tables: the rows of a float table, with the decoder blocks' linear weights quantised.

In: a table of rules for float weights, and a quantisation. Out: the table for the quantised checkpoint. Embedding,
norms, projector and vision tower are never quantised, the head only where the quantisation includes it.
"""

from __future__ import annotations

from dataclasses import replace

from convert import CheckpointError
from convert.layouts import Segment, stacked
from convert.mappings.experts import is_router
from convert.quant_config import Quantization
from convert.quant_layout import packing_obstacle
from convert.quantize_rule import Quantize
from convert.rules import Rule, Split, Stack, Transpose, keep, split_columns

_NIBBLES = 8  # output channels in one int32 of AWQ's


def rules(table: list[Rule], quantization: Quantization) -> list[Rule]:
    """The table with the decoder blocks' linear rows replaced.

    Raises:
        CheckpointError: the layout can hold none of the weights.
    """
    quantised = []
    for rule in table:
        if not _is_quantizable_linear(rule, quantization.head):
            quantised.append(rule)
        elif quantization.method == "awq":
            quantised += _awq(rule, quantization.group_size)
        else:
            quantised.append(_weight_only(rule, quantization))
    if quantization.is_weight_only and not any(isinstance(rule, Quantize) for rule in quantised):
        first = next(rule for rule in table if _is_quantizable_linear(rule))
        raise CheckpointError(f"no weight can be quantised: {first.ours[0]}: {_obstacle(first, quantization)}")
    return quantised


def _is_quantizable_linear(rule: Rule, head: bool = False) -> bool:
    linear = isinstance(rule, (Transpose, Stack)) or (isinstance(rule, Split) and len(rule.shapes[0]) == 2)
    return linear and is_quantizable(rule.ours[0], head)


def is_head(parameter: str) -> bool:
    """Whether a parameter of ours is the weight of the output head."""
    return f".{parameter}".endswith(".lm_head.weight")


def is_quantizable(parameter: str, head: bool = False) -> bool:
    """Whether a parameter of ours, known to be a linear weight, is one of a decoder block, and no router's.

    Args:
        parameter: its name.
        head: whether the output head counts too.
    """
    if head and is_head(parameter):
        return True
    in_block = ".layers." in f".{parameter}" and "vision_model." not in parameter and "encoder." not in parameter
    return in_block and not is_router(parameter.rpartition(".")[0])


def _awq(rule: Rule, group_size: int) -> list[Rule]:
    """qweight, qzeros and scales in place of a float weight; fused ones are cut along columns, none is transposed."""
    if isinstance(rule, Stack):
        raise CheckpointError(f"{rule.upstream[0]}: AWQ of a mixture of experts is not supported; take the float model")
    outputs, inputs = rule.shapes[0]
    if inputs % group_size:
        raise CheckpointError(
            f"{rule.upstream[0]}: {inputs} inputs are not a multiple of the AWQ group size {group_size}"
        )
    layout = rule.layout if isinstance(rule, Split) else stacked(outputs)
    made = []
    for kind, rows, per_column in (("qweight", inputs, _NIBBLES), ("qzeros", inputs // group_size, _NIBBLES),
                                   ("scales", inputs // group_size, 1)):  # fmt: skip
        upstream = rule.upstream[0].removesuffix("weight") + kind
        ours = [name.removesuffix("weight") + kind for name in rule.ours]
        shape = (rows, outputs // per_column)
        if len(ours) == 1:
            made.append(keep(upstream, ours[0], shape))
        else:
            made.append(split_columns(upstream, ours, shape, _scaled(layout, per_column, upstream)))
    return made


def _scaled(layout: tuple[Segment, ...], divisor: int, name: str) -> tuple[Segment, ...]:
    for segment in layout:
        if segment.length % divisor:
            raise CheckpointError(f"{name}: parts of {segment.length} channels can't be cut out of packed columns of 8")
    return tuple(Segment(s.part, s.part_start // divisor, s.length // divisor, s.start // divisor) for s in layout)


def _obstacle(rule: Rule, quantization: Quantization) -> str | None:
    """The reason why Paddle's layout can't hold one of the rule's weights; None: it holds all."""
    bits, group_size, head = quantization.bits, quantization.group_size, is_head(rule.ours[0])
    obstacles = (packing_obstacle(*shape[-2:], bits, group_size, padded=head) for shape in rule.our_shapes())
    return next((obstacle for obstacle in obstacles if obstacle), None)


def _weight_only(rule: Rule, quantization: Quantization) -> Rule:
    """Paddle's packed integers and scales; a weight that the layout can't hold stays a float."""
    obstacle = _obstacle(rule, quantization)
    if obstacle and is_head(rule.ours[0]):
        raise CheckpointError(f"the head can't be quantised: {obstacle}")
    if obstacle:
        return rule
    names = tuple(
        name.removesuffix("weight") + kind for name in rule.ours for kind in ("quant_weight", "quant_scale")
    )  # fmt: skip
    return Quantize(
        rule.upstream, names, rule.shapes, optional=rule.optional, base=replace(rule), quantization=quantization
    )
