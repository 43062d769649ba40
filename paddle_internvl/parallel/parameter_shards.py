"""Sharded parameters (ZeRO stages 2 and 3): each rank holds, updates and has gradients of a slice of every parameter.

A parameter of the network is replaced by its shard, a flat parameter of the same name. A hook gathers the parameters of
a unit (a layer, or the network around its layers) before the unit's forward pass, and puts the shards back after it.
Gathering is differentiable: in the backward pass the gradient of the whole parameter is reduced over the ranks and
scattered, and each rank keeps the mean of its slice.

Every rank has to run the same units in the same order. Paddle's `group_sharded_parallel` does the same on cards alone;
it gathers no parameter that is used outside of its layer's forward pass, as the output head's in the chunked loss.

Source: ZeRO, https://arxiv.org/abs/1910.02054.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import paddle
from paddle import distributed, nn
from paddle.autograd import PyLayer
from paddle.base.framework import EagerParamBase

from paddle_internvl.ops import devices


class Shard(EagerParamBase):
    """This rank's slice of a parameter, flat; zeros fill the last slices up to one length.

    Args:
        values: of the slice.
        whole_shape: shape of the parameter.
        trainable: whether the parameter is trained.
    Attributes:
        whole: the parameter, of stage 2; None: it is gathered when it is used.
    """

    def __init__(self, values: paddle.Tensor, whole_shape: Sequence[int], trainable: bool):
        super().__init__(values.shape, values.dtype, trainable=trainable)
        self._set_impl(values)
        self.whole_shape = tuple(whole_shape)
        self.whole: paddle.Tensor | None = None

    def __deepcopy__(self, _copies) -> Shard:
        shard = Shard(self.detach().clone(), self.whole_shape, not self.stop_gradient)
        shard.whole = None if self.whole is None else self.whole.clone()
        return shard


class ParameterShards:
    """Replaces the parameters of a network by this rank's shards.

    Args:
        network: the network.
        units: layers that are gathered one at a time; the rest of the network is gathered around them.
        group: the ranks that a parameter is sharded over.
        replicas: the ranks that have the same shards as this one; None: this one alone.
        keep_whole: stage 2: trained parameters stay whole in memory beside their shards and are gathered once after
            each optimizer step (`update_whole`), frozen ones are not sharded. False: stage 3.
    """

    def __init__(self, network: nn.Layer, units: Sequence[nn.Layer], group, replicas=None, keep_whole: bool = False):
        self.group, self._keep_whole = group, keep_whole
        self._replicas = replicas if replicas is not None and replicas.nranks > 1 else None
        self._network, self._open = network, {}
        shards: dict[int, Shard] = {}  # a parameter may be in several layers
        for layer in network.sublayers(include_self=True):
            for name, parameter in layer._parameters.items():
                if parameter is None or (keep_whole and parameter.stop_gradient):
                    continue
                if id(parameter) not in shards:
                    shards[id(parameter)] = self._shard_of(parameter)
                layer._parameters[name] = shards[id(parameter)]
        self._shards = list(shards.values())
        for unit in [*units, network]:
            unit.is_shard_unit = True
            unit.register_forward_pre_hook(self._gather_unit)
            unit.register_forward_post_hook(self._release_unit)
        self.update_whole()

    def __deepcopy__(self, _copies) -> ParameterShards:
        return self  # hooks of a copied network gather its own parameters, over the same ranks

    def bounds(self, shard: Shard) -> tuple[int, int]:
        """First and last + 1 number of the flat parameter that this rank has; zeros follow in the last shards."""
        return self._bounds(prod(shard.whole_shape), shard.shape[0])

    def update_whole(self) -> None:
        """Stage 2: gather the whole parameters from their shards. Every rank calls it at the same time."""
        if self._keep_whole:
            for shard in self._shards:
                shard.whole = self._gather(shard)

    @contextmanager
    def whole_on_first_rank(self, trained_only: bool = False) -> Iterator[None]:
        """Context in which the network of the first rank has whole parameters, in host memory, to be saved.

        Every rank enters it at the same time.

        Args:
            trained_only: leave frozen parameters sharded.
        """
        shards = [slot for slot in _slots([self._network], nested=True) if not (trained_only and slot[2].stop_gradient)]
        first = distributed.get_rank() == 0
        whole: dict[int, paddle.Tensor] = {}
        try:
            for holder, name, shard in shards:
                if id(shard) not in whole:
                    tensor = self._gather(shard)
                    whole[id(shard)] = tensor.cpu() if first else None
                if first:
                    tensor = whole[id(shard)]
                    tensor.stop_gradient = shard.stop_gradient
                    holder[name] = tensor
            with devices.on("cpu" if first else None):
                yield
        finally:
            for holder, name, shard in shards:
                holder[name] = shard

    # ------------------------------------------------------------------------------------------------------- hooks
    def _gather_unit(self, unit: nn.Layer, _inputs) -> None:
        slots = list(_slots([unit]))
        shards = list({id(shard): shard for _, _, shard in slots}.values())
        trained = [shard for shard in shards if not shard.stop_gradient]
        whole = {id(shard): self._whole(shard) for shard in shards if shard.stop_gradient}
        if trained:
            tensors = _GatherParameters.apply(*trained, shards=self)
            whole.update(zip(map(id, trained), tensors))
        for holder, name, shard in slots:
            holder[name] = whole[id(shard)]
        self._open[id(unit)] = slots

    def _release_unit(self, unit: nn.Layer, _inputs, _outputs) -> None:
        for holder, name, shard in self._open.pop(id(unit)):
            holder[name] = shard

    # ------------------------------------------------------------------------------------------------------- tensors
    def _bounds(self, size: int, length: int) -> tuple[int, int]:
        return min(self.group.rank * length, size), min((self.group.rank + 1) * length, size)

    def _shard_of(self, parameter: paddle.Tensor) -> Shard:
        size, ranks = prod(parameter.shape), self.group.nranks
        length = -(-size // ranks)
        start, stop = self._bounds(size, length)
        with devices.on(devices.device_of(parameter)):  # where nothing but the slice is read of mapped weights
            values = parameter.detach().flatten()[start:stop].clone()
        part = paddle.zeros([length], parameter.dtype)
        part[: stop - start] = devices.to_device(values, devices.device_of(part))
        return Shard(part, parameter.shape, not parameter.stop_gradient)

    def _whole(self, shard: Shard) -> paddle.Tensor:
        return self._gather(shard) if shard.whole is None else shard.whole.detach()

    @paddle.no_grad()
    def _gather(self, shard: Shard) -> paddle.Tensor:
        flat = paddle.empty([shard.shape[0] * self.group.nranks], shard.dtype)
        distributed.stream.all_gather(flat, shard.detach(), group=self.group, **_stream())
        return flat[: prod(shard.whole_shape)].reshape(shard.whole_shape)

    @paddle.no_grad()
    def _reduce(self, gradient: paddle.Tensor, shard: Shard) -> paddle.Tensor:
        """This rank's slice of the mean of the ranks' gradients."""
        ranks, length = self.group.nranks, shard.shape[0]
        flat = gradient.flatten()
        if flat.shape[0] < ranks * length:
            flat = paddle.concat([flat, paddle.zeros([ranks * length - flat.shape[0]], flat.dtype)])
        if distributed.get_backend(self.group) == "GLOO":  # without reduce_scatter
            distributed.all_reduce(flat, group=self.group)
            part = flat[self.group.rank * length : (self.group.rank + 1) * length].clone()
        else:
            part = paddle.empty([length], flat.dtype)
            distributed.stream.reduce_scatter(part, flat, group=self.group, **_stream())
        if self._replicas is not None:
            distributed.all_reduce(part, group=self._replicas)
            ranks *= self._replicas.nranks
        return part.scale_(1.0 / ranks)


class _GatherParameters(PyLayer):
    """The whole parameters of a unit, as a differentiable function of its trained shards."""

    @staticmethod
    def forward(ctx, *trained, shards: ParameterShards):
        ctx.trained, ctx.shards = trained, shards
        return tuple(shards._whole(shard) for shard in trained)

    @staticmethod
    def backward(ctx, *gradients):
        return tuple(ctx.shards._reduce(gradient, shard) for gradient, shard in zip(gradients, ctx.trained))


def _slots(layers: Sequence[nn.Layer], nested: bool = False) -> Iterator[tuple[dict, str, Shard]]:
    """Holder, name and shard of the sharded parameters of layers, with or without those of the units inside them."""
    for layer in layers:
        for name, parameter in layer._parameters.items():
            if isinstance(parameter, Shard):
                yield layer._parameters, name, parameter
        inside = layer._sub_layers.values()
        yield from _slots([each for each in inside if nested or not getattr(each, "is_shard_unit", False)], nested)


def _stream() -> dict:
    """Options of collective operations: on the stream of the computation, which gloo does not have."""
    return {} if distributed.get_backend() == "GLOO" else {"use_calc_stream": True}
