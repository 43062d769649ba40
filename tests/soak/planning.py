"""What is sent in a soak, in which order: honest requests, ones whose client leaves, and malicious ones, by shares.

In: questions, attacks, a random generator. Out: lists of `Sent`. Opens no connection.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.soak.attacks import Attack
from tests.soak.clients import WAYS
from tests.soak.questions import CHAT, COUNT, Question

SHARES = {"leaving": 0.2, "malicious": 0.05}


@dataclass(frozen=True)
class Sent:
    """One request of a plan. kind: 'honest', 'leaving' or 'malicious'. what: whom it asks for. way: how it leaves.
    stream, hosted, share: see `Clients`."""

    kind: str
    request: Question | Attack
    way: str = ""
    stream: bool = False
    hosted: bool = False
    share: float = 0.0


def plan(
    count: int, draw: random.Random, questions: Sequence[Question], malicious: Sequence, shares: dict
) -> list[Sent]:
    """`count` requests in a random order; every question and attack comes equally often, as far as that goes."""
    leaving, evil = (round(count * shares[kind]) for kind in ("leaving", "malicious"))
    honest = [
        Sent("honest", request, stream=draw.random() < 0.5, hosted=draw.random() < 0.3)
        for request in _round(questions, count - leaving - evil, draw)
    ]
    chats = [question for question in questions if question.path == CHAT]
    left = [
        Sent("leaving", request, WAYS[i % len(WAYS)], share=draw.random())
        for i, request in enumerate(_round(chats, leaving, draw))
    ]
    mixed = honest + left + [Sent("malicious", request) for request in _round(malicious, evil, draw)]
    draw.shuffle(mixed)
    return mixed


def _round(things: Sequence, count: int, draw: random.Random) -> Iterator:
    order: list = []
    for _ in range(count):
        order = order or draw.sample(list(things), len(things))
        yield order.pop()


def everything(questions: Sequence[Question], evil: Sequence) -> list[Sent]:
    """Every question streamed and not, every attack, every way to leave."""
    sent = [Sent("honest", request, stream=s, hosted=s) for request in questions for s in (False, True)]
    sent += [Sent("malicious", request) for request in evil]
    return sent + [Sent("leaving", questions[i], way, share=i / 4) for i in range(4) for way in WAYS]


def answers(sent: Sent) -> int:
    """How many answers the engine makes for somebody who waits."""
    if sent.kind == "leaving" or isinstance(sent.request, Attack) or sent.request.path == COUNT:
        return 0
    return sent.request.settings.get("n", 1)
