"""Rules: what happens to each tensor between upstream's layout and ours, forward and backward.

In: a table of rules and the names, dtypes and shapes of a checkpoint. Out: `Output`s, each of which can fill any
rows of one tensor from the arrays of others. Bytes are moved, never computed.

Upstream holds a linear weight as [out, in], Paddle as [in, out]. That a weight is linear is written in its row:
many are square, so no shape could tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from convert import CheckpointError
from convert.layouts import Segment
from convert.outputs import Copy, Output, RowOutput, Shape, StackedOutput
from convert.safetensors_io import TensorInfo


@dataclass(frozen=True)
class Rule:
    """Base of the rules: upstream tensors and ours, with upstream's shape of each.

    Attributes:
        upstream, ours: names; `{}` stands for the layer in a rule given to `per_layer`.
        shapes: of the upstream tensors, in the alphabet of the tables. optional: may be absent from a checkpoint.
    """

    upstream: tuple[str, ...]
    ours: tuple[str, ...]
    shapes: tuple[Shape, ...]
    optional: bool = False

    @property
    def kind(self) -> str:
        return type(self).__name__

    def at(self, layer: int) -> Rule:
        """The rule of one layer."""
        return replace(
            self,
            upstream=tuple(name.format(layer) for name in self.upstream),
            ours=tuple(name.format(layer) for name in self.ours),
        )

    def our_shapes(self) -> tuple[Shape, ...]:
        """Shapes of our tensors."""
        raise NotImplementedError

    def forward(self) -> list[Output]:
        """Our tensors from upstream's."""
        raise NotImplementedError

    def backward(self) -> list[Output]:
        """Upstream's tensors from ours."""
        raise NotImplementedError


class _OneToOne(Rule):
    transposed = False

    def our_shapes(self) -> tuple[Shape, ...]:
        return (self.shapes[0][::-1],) if self.transposed else self.shapes

    def _output(self, source: str, target: str, source_shape: Shape) -> list[Output]:
        if not self.transposed:
            return [Output(target, source_shape, (Copy(source, 0, source_shape[0], 0),))]
        copies = (Copy(source, 0, source_shape[0], 0),)
        return [Output(target, source_shape[::-1], copies, transposed=True, feature_axis=1)]

    def forward(self) -> list[Output]:
        return self._output(self.upstream[0], self.ours[0], self.shapes[0])

    def backward(self) -> list[Output]:
        return self._output(self.ours[0], self.upstream[0], self.our_shapes()[0])


class Keep(_OneToOne):
    """The same bytes under another name."""


class Transpose(_OneToOne):
    """The weight of a linear layer: transposed."""

    transposed = True


@dataclass(frozen=True)
class Split(Rule):
    """One fused upstream tensor into several of ours, along its rows, by a layout. Two axes: linear, transposed."""

    layout: tuple[Segment, ...] = ()

    def our_shapes(self) -> tuple[Shape, ...]:
        rows = [0] * len(self.ours)
        for segment in self.layout:
            rows[segment.part] += segment.length
        return tuple((*self.shapes[0][1:], count) for count in rows)

    def forward(self) -> list[Output]:
        linear = len(self.shapes[0]) == 2
        outputs = []
        for part, (name, shape) in enumerate(zip(self.ours, self.our_shapes())):
            copies = tuple(
                Copy(self.upstream[0], s.start, s.length, s.part_start) for s in self.layout if s.part == part
            )
            outputs.append(Output(name, shape, copies, linear, feature_axis=1 if linear else 0))
        return outputs

    def backward(self) -> list[Output]:
        copies = tuple(Copy(self.ours[s.part], s.part_start, s.length, s.start) for s in self.layout)
        return [Output(self.upstream[0], self.shapes[0], copies, transposed=len(self.shapes[0]) == 2)]


@dataclass(frozen=True)
class Join(Rule):
    """Several upstream tensors into one of ours, by the layout of their rows. Two axes: linear, transposed."""

    layout: tuple[Segment, ...] = ()

    @property
    def _fused(self) -> Shape:
        return (sum(shape[0] for shape in self.shapes), *self.shapes[0][1:])

    def our_shapes(self) -> tuple[Shape, ...]:
        return (self._fused[::-1],)

    def forward(self) -> list[Output]:
        linear = len(self.shapes[0]) == 2
        copies = tuple(Copy(self.upstream[s.part], s.part_start, s.length, s.start) for s in self.layout)
        return [Output(self.ours[0], self._fused[::-1], copies, linear, feature_axis=1 if linear else 0)]

    def backward(self) -> list[Output]:
        linear = len(self.shapes[0]) == 2
        outputs = []
        for part, (name, shape) in enumerate(zip(self.upstream, self.shapes)):
            copies = tuple(Copy(self.ours[0], s.start, s.length, s.part_start) for s in self.layout if s.part == part)
            outputs.append(Output(name, shape, copies, linear))
        return outputs


@dataclass(frozen=True)
class Stack(Join):
    """Linear weights of all experts into one of ours, [experts, in, out]; those of one expert are joined by the layout.

    `upstream` has the weights of expert 0, then those of expert 1, and so on.
    """

    @property
    def _members(self) -> list[Join]:
        count = 1 + max(segment.part for segment in self.layout)
        return [
            Join(
                self.upstream[first : first + count], self.ours, self.shapes[first : first + count], layout=self.layout
            )
            for first in range(0, len(self.upstream), count)
        ]

    def our_shapes(self) -> tuple[Shape, ...]:
        """See `Rule`."""
        members = self._members
        return ((len(members), *members[0].our_shapes()[0]),)

    def forward(self) -> list[Output]:
        """See `Rule`."""
        members = tuple(output for member in self._members for output in member.forward())
        copies = tuple(copy for member in members for copy in member.copies)
        return [StackedOutput(self.ours[0], self.our_shapes()[0], copies, members=members)]

    def backward(self) -> list[Output]:
        """See `Rule`."""
        return [
            RowOutput(**vars(output), row=row)
            for row, member in enumerate(self._members)
            for output in member.backward()
        ]


class SplitColumns(Split):
    """One fused upstream tensor into several of ours along its columns, nothing transposed (AWQ's packed tensors)."""

    def our_shapes(self) -> tuple[Shape, ...]:
        return tuple((self.shapes[0][0], shape[-1]) for shape in super().our_shapes())

    def forward(self) -> list[Output]:
        return [replace(output, shape=shape, transposed=False, feature_axis=1)
                for output, shape in zip(super().forward(), self.our_shapes())]  # fmt: skip

    def backward(self) -> list[Output]:
        return [replace(output, transposed=False, feature_axis=1) for output in super().backward()]


@dataclass(frozen=True)
class Drop(Rule):
    """An upstream tensor that we do not need. It is not written back."""

    why: str = ""

    def our_shapes(self) -> tuple[Shape, ...]:
        return ()

    def forward(self) -> list[Output]:
        return []

    def backward(self) -> list[Output]:
        return []


def keep(upstream: str, ours: str, shape: Shape, optional: bool = False) -> Keep:
    """A row of a table: see `Keep`."""
    return Keep((upstream,), (ours,), (shape,), optional)


def linear(upstream: str, ours: str, shape: Shape, optional: bool = False) -> Transpose:
    """A row of a table: see `Transpose`. `shape` is upstream's [out, in]."""
    return Transpose((upstream,), (ours,), (shape,), optional)


def split(upstream: str, ours: Sequence[str], shape: Shape, layout: tuple[Segment, ...]) -> Split:
    """A row of a table: see `Split`."""
    return Split((upstream,), tuple(ours), (shape,), layout=layout)


def split_columns(upstream: str, ours: Sequence[str], shape: Shape, layout: tuple[Segment, ...]) -> SplitColumns:
    """A row of a table: see `SplitColumns`."""
    return SplitColumns((upstream,), tuple(ours), (shape,), layout=layout)


def join(upstream: Sequence[str], ours: str, shape: Shape, layout: tuple[Segment, ...]) -> Join:
    """A row of a table: see `Join`. `shape` is that of each upstream part."""
    return Join(tuple(upstream), (ours,), (shape,) * len(upstream), layout=layout)


def stack(upstream: Sequence[str], ours: str, shape: Shape, layout: tuple[Segment, ...]) -> Stack:
    """A row of a table: see `Stack`. `shape` is that of each upstream weight."""
    return Stack(tuple(upstream), (ours,), (shape,) * len(upstream), layout=layout)


def drop(upstream: str, why: str) -> Drop:
    """A row of a table: see `Drop`."""
    return Drop((upstream,), (), (), optional=True, why=why)


def per_layer(layers: int, rules: Iterable[Rule]) -> list[Rule]:
    """The rules once for every layer."""
    rules = list(rules)
    return [rule.at(layer) for layer in range(layers) for rule in rules]


def plan(rules: Sequence[Rule], tensors: dict[str, TensorInfo], *, to_paddle: bool) -> list[tuple[Rule, Output]]:
    """What has to be made, in the order of the table: every tensor is taken by exactly one rule.

    Args:
        rules: the table. tensors: what the checkpoint holds. to_paddle: forward, else backward.
    Raises:
        CheckpointError: names without a rule or of two, names that are missing, wrong shapes, mixed dtypes; all of
        them counted, the first of each named.
    """
    owner: dict[str, Rule] = {}
    problems: list[str] = []
    for rule in rules:
        for name in rule.upstream if to_paddle else rule.ours:
            if name in owner:
                problems.append(f"{name} is taken by two rules ({owner[name].kind}, {rule.kind})")
            owner[name] = rule
    problems += _unknown(tensors, owner) + _missing(tensors, rules, to_paddle)
    planned: list[tuple[Rule, Output]] = []
    for rule in rules:
        names = rule.upstream if to_paddle else rule.ours
        shapes = rule.shapes if to_paddle else rule.our_shapes()
        if not all(name in tensors for name in names):
            continue
        for name, shape in zip(names, shapes):
            if tensors[name].shape != shape:
                problems.append(f"{name} has shape {list(tensors[name].shape)}, config.json means {list(shape)}")
        if len({tensors[name].dtype for name in names}) > 1:
            problems.append(f"{', '.join(names)} differ in dtype and can't be joined")
        for output in rule.forward() if to_paddle else rule.backward():
            planned.append((rule, output.bind(tensors[names[0]].dtype)))
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise CheckpointError(f"the checkpoint does not fit its config.json: {problems[0]}{more}")
    return planned


def _unknown(tensors: dict[str, TensorInfo], owner: dict[str, Rule]) -> list[str]:
    names = sorted(tensors.keys() - owner.keys())
    if not names:
        return []
    shown = ", ".join(f"{name} in {tensors[name].file.name}" for name in names[:3])
    return [f"{len(names)} tensors have no rule: {shown}{' ...' if len(names) > 3 else ''}"]


def _missing(tensors: dict[str, TensorInfo], rules: Sequence[Rule], to_paddle: bool) -> list[str]:
    names = [n for rule in rules if not rule.optional for n in (rule.upstream if to_paddle else rule.ours)]
    lost = [name for name in names if name not in tensors]
    if not lost:
        return []
    return [f"{len(lost)} tensors are missing: {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}"]


def dtype_of(output: Output, tensors: dict[str, TensorInfo]) -> str:
    """The dtype of an output: its own, or the one it takes over from its sources."""
    return output.dtype or tensors[output.copies[0].source].dtype


def elements(output: Output) -> int:
    """How many numbers the output holds."""
    return prod(output.shape)
