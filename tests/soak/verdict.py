"""What was wrong with a server that has gone through a soak: by its log, its end, and how it grew.

In: a `Server` and `Sight`s of it. Out: faults in words. What it held at rest is `Sight.beyond`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.soak.outside import Server, Sight

_BAD_WORDS = ("Traceback", " ERROR ", "never awaited", "was destroyed")


def of_its_end(server: Server, metrics: Mapping[str, float]) -> list[str]:
    """End the server by SIGTERM; what it should not have counted, said or left.

    Args:
        metrics: its last ones.
    """
    faults = [f"{key} is {metrics[key]:g}" for key in ("engine_failed", "engine_out_of_memory") if metrics[key]]
    code = server.end()
    faults += [f"SIGTERM ends it with {code}"] if code else []
    log = server.log
    faults += [f"its log holds {word!r}" for word in _BAD_WORDS if word in log]
    faults += [] if log.rstrip().endswith("closed") else [f"its last words are {log[-200:]!r}"]
    for name, lines in server.accesses().items():
        faults += [f"{name} was told {line.status}" for line in lines if line.status >= 500]
        if "honest" in name and (len(lines) != 1 or lines[0].status not in (200, 429)):
            faults.append(f"{name} has lines {lines}")
    return faults + [f"temporary file {path} outlives it" for path in (server.folder / "temporary").rglob("*")]


def of_growth(first: Sight, second: Sight, factor: float | None) -> list[str]:
    """What grew over the second half of the requests.

    Args:
        first, second: after either half. most: factor that memory may grow by; None: any.
    """
    faults = []
    for name in ("rss", "anonymous") if factor is not None else ():
        before, after = getattr(first, name), getattr(second, name)
        if after > factor * before:
            faults.append(f"{name} grew over the second half from {before:,} to {after:,} bytes")
    if second.native > first.native:
        faults.append(f"{second.native} native threads after the second half, {first.native} after the first")
    return faults


def of_work(finished: float, answers: int, left: Counter) -> list[str]:
    """Whether the engine went on for those who had left.

    Args:
        finished: answers that came to their end in the engine. answers: those that somebody waited for. left: see
            `places`; who leaves at the very end may let the engine finish, too: at most one in twenty.
    """
    limit = answers + left["not left, told 200"] + max(1, left.total() // 20)
    if answers <= finished <= limit:
        return []
    return [f"the engine finished {finished:g} answers; {answers} were waited for, {limit} at most may have ended"]


def places(server: Server, word: str = "leaving") -> Counter:
    """Where requests were left, by the server's log. word: in the ids that count."""
    found: Counter = Counter()
    for name, lines in server.accesses().items():
        for line in lines if word in name else ():
            if line.status != 499:
                found[f"not left, told {line.status}"] += 1
            elif line.tokens_in is None:
                found["before there was a prompt"] += 1
            else:
                found["in the answer" if line.tokens_out else "before the first token"] += 1
    return found
