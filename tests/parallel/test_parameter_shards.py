"""Sharded parameters in one process, which stands for the first of two ranks; two real ranks: tests/training."""

import copy
from types import SimpleNamespace
from unittest import mock

import numpy as np
import paddle
import pytest
from paddle import distributed, nn

from paddle_internvl.parallel.parameter_shards import ParameterShards, Shard


@pytest.fixture
def cards(monkeypatch):
    """Collective operations of cards (NCCL), with the arguments that Paddle's take; the second rank has zeros."""
    stream = SimpleNamespace(
        all_gather=mock.create_autospec(distributed.stream.all_gather, side_effect=_all_gather),
        reduce_scatter=mock.create_autospec(distributed.stream.reduce_scatter, side_effect=_reduce_scatter),
    )
    monkeypatch.setattr(distributed, "stream", stream)
    monkeypatch.setattr(distributed, "get_backend", lambda _group=None: "NCCL")
    return stream


def _all_gather(whole, shard, **_options):
    whole.set_value(paddle.concat([shard, paddle.zeros_like(shard)]))


def _reduce_scatter(part, whole, **_options):
    part.set_value(whole[: part.shape[0]])


def sharded(keep_whole: bool) -> tuple[nn.Layer, ParameterShards, list[np.ndarray]]:
    """Two linear layers without bias of 15 numbers, the first one frozen; and the weights that the two ranks hold."""
    paddle.seed(1)
    network = nn.Sequential(nn.Linear(3, 5, bias_attr=False), nn.Linear(5, 3, bias_attr=False))
    network[0].weight.stop_gradient = True
    held = [
        np.where(np.arange(15) < 8, layer.weight.numpy().flatten(), 0).reshape(layer.weight.shape) for layer in network
    ]
    if keep_whole:
        held[0] = network[0].weight.numpy()
    group = SimpleNamespace(nranks=2, rank=0)
    return network, ParameterShards(network, [network[1]], group, keep_whole=keep_whole), held


@pytest.mark.parametrize("keep_whole", [False, True])
def test_a_shard_has_its_slice_of_the_mean_gradient(cards, keep_whole):
    network, shards, held = sharded(keep_whole)
    shard = network[1].weight
    assert isinstance(shard, Shard) and shard.shape == [8] and shards.bounds(shard) == (0, 8)
    assert isinstance(network[0].weight, Shard) != keep_whole  # frozen
    slope = np.arange(6, dtype=np.float32).reshape([2, 3])
    outputs = network(paddle.ones([2, 3]))
    hidden = np.ones([2, 3]) @ held[0]
    np.testing.assert_allclose(outputs.numpy(), hidden @ held[1], rtol=1e-5)
    (outputs * paddle.to_tensor(slope)).sum().backward()
    assert network[1].weight is shard and shard.grad.shape == [8]
    gathered = cards.all_gather.call_args_list[-1]
    assert gathered.kwargs == {"group": shards.group, "use_calc_stream": True}
    reduced = cards.reduce_scatter.call_args
    assert reduced.kwargs == {"group": shards.group, "use_calc_stream": True}
    np.testing.assert_allclose(reduced.args[1].numpy(), np.append((hidden.T @ slope).flatten(), 0), rtol=1e-5)
    np.testing.assert_allclose(shard.grad.numpy(), (hidden.T @ slope).flatten()[:8] / 2, rtol=1e-5)


def test_a_copy_has_shards_of_its_own(cards):
    network, _, _ = sharded(keep_whole=False)
    reference = copy.deepcopy(network)
    x = paddle.ones([2, 3])
    before = network(x).numpy()
    network[1].weight.set_value(paddle.zeros([8]))
    assert (network(x).numpy() == 0).all()
    np.testing.assert_array_equal(reference(x).numpy(), before)
