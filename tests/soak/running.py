"""One soak: a server, its clients in three parts, and what is left of them afterwards.

In: a model, its checkpoint, how many requests. Out: a report of plain values whose `faults` should be empty.

The first part warms up: every question, every attack and every way to leave once. The other two are halves of what was
asked for, alike in their make-up. After each part everybody leaves, and the server is looked at.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from tests.soak import outside, verdict
from tests.soak.attacks import LARGEST, Attack, attacks, post
from tests.soak.clients import Clients
from tests.soak.hosts import hosts
from tests.soak.planning import SHARES, Sent, answers, everything, plan
from tests.soak.questions import CHAT, Expected, Medium, Question, expected, forgeries, questions

CONTEXT = 4096  # tokens of a request, and of the KV cache: one request may reserve all of it
FLAGS = {
    "session-len": CONTEXT, "cache-tokens": CONTEXT, "max-batch-size": 4, "queue-size": 10,
    "max-concurrent-requests": 14, "max-body-bytes": LARGEST, "max-pending-bytes": LARGEST, "max-image-bytes": 1 << 20,
    "max-video-bytes": 2 << 20, "max-image-pixels": 4_000_000, "max-frames": 16, "max-images": 4,
    "queue-timeout": 60, "keep-alive-timeout": 2, "header-timeout": 5, "body-timeout": 20, "log-level": "info",
}  # fmt: skip
AT_ONCE = 16
GROWTH = 1.10  # of memory, over the second half

_HELLO = Question("last", CHAT, (("Hello",),), {"max_tokens": CONTEXT}, {"max_new_tokens": CONTEXT})


async def send(
    clients: Clients, planned: Sequence[Sent], right: dict[int, Expected], on_request: Callable
) -> list[str]:
    """Send all requests of a plan, `AT_ONCE` at a time.

    Args:
        clients: that send.
        planned: the requests.
        right: expected answers by `id` of the question.
        on_request: called with every finished request and its fault.
    Returns:
        The faults.
    """
    faults: list[str] = []
    waiting = iter(list(enumerate(planned)))

    async def work() -> None:
        for i, sent in waiting:
            name, request = f"{sent.kind}-{i}", sent.request
            try:
                fault = await _sent(clients, name, sent, right)
            except Exception as error:  # a client of ours that breaks is no reason to end the run
                fault = f"{type(error).__name__}: {error}"
            on_request(sent, fault)
            if fault:
                label = request.name if isinstance(request, Attack) else f"{request.kind} {dict(request.fields)}"
                faults.append(f"{clients.name}-{name} ({label}): {fault}")

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    return faults


async def _sent(clients: Clients, name: str, sent: Sent, right: dict[int, Expected]) -> str | None:
    if sent.kind == "leaving":
        return await clients.leave(name, sent.request, sent.way, sent.share)
    if isinstance(sent.request, Attack):
        return await clients.attack(sent.request)
    return await clients.ask(name, sent.request, right[id(sent.request)], sent.stream, sent.hosted)


async def soak(
    model,
    checkpoint: Path | str,
    requests: int,
    seed: int = 0,
    distinct: int = 80,
    warm_up: bool = True,
    shares: dict[str, float] = SHARES,
    growth: float | None = GROWTH,
    on_request: Callable[[Sent, str | None], None] = lambda sent, fault: None,
) -> dict:
    """Run a soak test.

    Args:
        model: of the checkpoint, in this process.
        checkpoint: folder, which the server loads.
        requests: number of requests.
        seed: of the questions and the plan.
        distinct: number of different questions.
        warm_up: send everything once first; False: also without the slow attacks.
        shares: of leaving and malicious clients.
        growth: highest factor of memory growth; None: any.
        on_request: called with every finished request and its fault.
    """
    honest, forged = questions(seed, distinct), forgeries()
    media = [part for question in honest for turn in question.turns for part in turn if isinstance(part, Medium)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with hosts(media) as at:
            ports = [str(at.public.port), str(at.private.port)]
            flags = [word for name, value in FLAGS.items() for word in (f"--{name}", str(value))]
            flags += ["--allowed-media-ports", *ports]
            with outside.server(checkpoint, flags, Path(folder)) as server:
                right = {id(question): expected(model, question) for question in (*honest, *forged, _HELLO)}
                outside.wait_until_ready(server)
                evil = [a for a in attacks(Path(checkpoint).name, at) if warm_up or not a.slow] + forged
                draw = random.Random(seed)
                parts = {
                    "warm-up": everything(honest, evil) if warm_up else [],
                    "first half": plan(requests // 2, draw, honest, evil, shares),
                    "second half": plan(requests - requests // 2, draw, honest, evil, shares),
                }
                report = await _run(server, parts, right, at, on_request)
                report["faults"] += verdict.of_growth(*list(report["sights"].values())[-2:], growth)
                report["sights"] = {part: vars(sight) for part, sight in report["sights"].items()}
            report |= {"requests": requests, "seed": seed, "distinct": distinct, "attacks": len(evil)}
            if at.private.requests:
                report["faults"].append(f"the private host was reached {at.private.requests} times")
    return {**report, "seconds": round(time.monotonic() - started, 1), "passed": not report["faults"]}


async def _run(server: outside.Server, parts: dict[str, list[Sent]], right, at, on_request) -> dict:
    name = server.served
    faults: list[str] = []
    sights = {"ready": server.at_rest()}
    left, retried, highest = Counter(), Counter(), {}
    for part, planned in parts.items():
        clients = Clients(server.url, name, at.url_of, part.replace(" ", "-"))
        async with anyio.create_task_group() as group:
            group.start_soon(clients.watch)
            faults += await send(clients, planned, right, on_request)
            group.cancel_scope.cancel()
        await clients.aclose()
        sights[part] = await anyio.to_thread.run_sync(server.at_rest, sights["ready"])
        faults += [f"after the {part}: {more}" for more in sights[part].beyond(sights["ready"])]
        if part != "warm-up":
            left, retried = left + clients.left, retried + clients.retried
            highest = {key: max(value, highest.get(key, 0)) for key, value in clients.highest.items()}
    metrics = server.metrics()
    everybody = [each for planned in parts.values() for each in planned]
    faults += verdict.of_work(metrics["engine_finished"], sum(map(answers, everybody)), verdict.places(server))
    faults += await _last_questions(server, name, at, right)
    faults += verdict.of_its_end(server, metrics)
    sent = parts["first half"] + parts["second half"]
    return {
        "sent": dict(Counter(each.kind for each in sent)),
        "kinds": dict(Counter(each.request.kind for each in sent if each.kind == "honest")),
        "left": dict(left),
        "left_in_the_log": dict(verdict.places(server, "half-leaving")),
        "retried_after_429": dict(retried),
        "highest": {
            key: highest[key] for key in ("engine_waiting", "engine_running", "requests_in_work") if key in highest
        },
        "metrics": {key: metrics[f"engine_{key}"] for key in ("finished", "cancelled", "failed", "out_of_memory")},
        "sights": sights,
        "faults": faults,
    }


async def _last_questions(server: outside.Server, name: str, at, right) -> list[str]:
    """The server still answers, and two things that no metric tells: every block of the KV cache can be reserved, and
    the bytes of all bodies may be sent in one."""
    clients = Clients(server.url, name, at.url_of, "last")
    whole = post(CHAT, _HELLO.body(name, at.url_of))
    content = whole.partition(b"\r\n\r\n")[2]
    largest = Attack("the largest body", (post(CHAT, content.ljust(LARGEST)),), (200,))
    try:
        found = [
            await clients.ask("whole-cache", _HELLO, right[id(_HELLO)], False, False),
            await clients.attack(largest),
        ]
    finally:
        await clients.aclose()
    return [f"at the end: {fault}" for fault in found if fault]
