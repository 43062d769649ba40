"""Rank 0 runs a shared model, the others do as it does: every call that computes on all ranks is repeated on each.

In: a network whose layers are shared out (`sharing`). On rank 0 some of its methods also tell the others of their call,
and everything above (generation, chat, engine, server) works as with any model. On the other ranks `follow` repeats
what it hears of until rank 0 ends. Tensors among the arguments are handed out by the team's own operation; caches are
known by number on both sides. A mirrored call must not be made within another.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import count

import paddle

from paddle_internvl.parallel.sharing import decoder_of
from paddle_internvl.parallel.team import Team

# part -> method that is mirrored -> methods of what it returns that are mirrored too
_MIRRORED = {
    "network": {"extract_feature": ()},
    "decoder": {"new_cache": ("keep_rows",), "new_cache_of": ("clear", "rows")},
    "embedding": {"forward": ()},
    "layers": {"forward": ()},
    "head": {"forward": ()},
}


@dataclass(frozen=True)
class _TensorOf:
    """Stands for a tensor that follows."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Known:
    """Stands for an object that both sides have, by its key."""

    key: object


def _parts(network) -> dict[str, object]:
    decoder = decoder_of(network)
    named = {"decoder": decoder, "embedding": decoder.model.embed_tokens, "layers": decoder.model}
    named["head"] = decoder.lm_head
    return {"network": network, **named} if network is not decoder else named


class Leader:
    """Rank 0's side: makes the mirrored methods of a network tell the others.

    Once a call has failed here, the others may stand in the midst of it: every later one is an error.
    """

    def __init__(self, network, team: Team):
        self._team, self._lock, self._numbers = team, threading.RLock(), count()
        self._keys: dict[int, object] = {}  # id of an object -> its key
        self._dropped: deque = deque()  # keys of objects that are gone, not told yet
        self._broken = False
        for key, part in _parts(network).items():
            self._keys[id(part)] = key
            for method, of_result in _MIRRORED[key].items():
                self._mirror(part, method, of_result)

    def _mirror(self, part, method: str, of_result: tuple[str, ...] = ()) -> None:
        own, key = getattr(part, method), self._keys[id(part)]
        # A cache must not be kept alive by a method of its own.
        own = weakref.WeakMethod(own) if isinstance(key, int) else (lambda own=own: own)
        setattr(part, method, self._telling(own, key, method, of_result))

    def _telling(self, own, key, method: str, of_result: tuple[str, ...]):
        def call(*inputs, **named):
            with self._lock:
                if self._broken:
                    raise RuntimeError("the ranks are out of step since an earlier failure; start them again")
                tensors: list[paddle.Tensor] = []
                told = [self._encoded(value, tensors) for value in inputs]
                told_by_name = {name: self._encoded(value, tensors) for name, value in named.items()}
                dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
                self._team.tell((key, method, told, told_by_name, dropped))
                try:
                    for tensor in tensors:
                        self._team.hand_out(tensor)
                    result = own()(*inputs, **named)
                except BaseException:
                    self._broken = True
                    raise
                if result is not None and not isinstance(result, paddle.Tensor):
                    self._remember(result, of_result)
                return result

        return call

    def _remember(self, made, methods: tuple[str, ...]) -> None:
        number = next(self._numbers)
        self._keys[id(made)] = number
        weakref.finalize(made, self._forget, id(made), number)
        for method in methods:
            self._mirror(made, method)

    def _forget(self, identity: int, number: int) -> None:
        if self._keys.get(identity) == number:
            del self._keys[identity]
        self._dropped.append(number)

    def _encoded(self, value, tensors: list):
        if isinstance(value, paddle.Tensor):
            tensors.append(value.contiguous())
            return _TensorOf(tuple(value.shape), str(value.dtype).removeprefix("paddle."))
        if id(value) in self._keys:
            return _Known(self._keys[id(value)])
        return value


def lead_or_follow(network, team: Team) -> None:
    """Rank 0: returns with a network that leads. Others: follow until rank 0 ends, then exit."""
    if team.leads:
        Leader(network, team)
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # a launcher sends them to every rank; rank 0 says when it is over
        signal.signal(number, signal.SIG_IGN)
    follow(network, team)
    raise SystemExit(0)


@paddle.no_grad()
def follow(network, team: Team) -> None:
    """The other ranks' side: repeat what rank 0 does until it ends."""
    known, numbers = _parts(network), count()
    while (heard := team.hear()) is not None:
        key, method, told, told_by_name, dropped = heard
        for number in dropped:
            known.pop(number)
        inputs = [_decoded(value, known, team) for value in told]
        named = {name: _decoded(value, known, team) for name, value in told_by_name.items()}
        made = getattr(known[key], method)(*inputs, **named)
        if made is not None and not isinstance(made, paddle.Tensor):
            known[next(numbers)] = made


def _decoded(value, known: dict, team: Team):
    if isinstance(value, _TensorOf):
        tensor = paddle.empty(list(value.shape), value.dtype)
        team.hand_out(tensor)
        return tensor
    if isinstance(value, _Known):
        return known[value.key]
    return value
