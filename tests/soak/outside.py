"""The server of the soak test as a process, and all that can be seen of it: /proc, /metrics, its log, its window.

In: flags. Out: a `Server` that can be looked at, and is ended in any case. A `Sight` is what a process holds at one
moment; two of them at rest tell what has leaked in between. Linux only. Asks the server nothing but GETs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from paddle_internvl.serve.settings import KEYS_VARIABLE
from tests.soak.inside import WINDOW

START, REST, END = 120, 30, 60  # seconds until it is ready, until it is at rest, until it has ended
_READY = re.compile(r"is served on (http://\S+)/v1")
_ACCESS = re.compile(r"id=(\S+) (\S+) (\S+) (\d{3}) ([\d.]+)s(?: in=(\d+) out=(\d+))?")
_METRIC = re.compile(r"^paddle_internvl_(\w+?)(?:_total)?(\{.*\})? (\S+)$", re.M)
# Threads that come and stay by design -> how many of them there may be.
_POOLS = {"AnyIO worker thread": 40, "resolve": 8, "prepare": 2}
_BUSY = ("requests_in_work", "engine_waiting", "engine_running", "engine_prefilling", "engine_blocks_used")


@dataclass(frozen=True)
class Access:
    """A line of the access log: what became of a request, as the server sees it. tokens_in: None if its prompt was
    never made."""

    method: str
    status: int
    seconds: float
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True)
class Sight:
    """What the server holds.

    Attributes:
        rss, anonymous: bytes, of /proc/PID/smaps_rollup; anonymous memory leaves out pages of mapped files, which come
            and go with the page cache. peak: the most resident bytes so far. lwps: threads of the system.
        objects: of Python, those its collector tracks. matchers: of answers that must match a format. threads, tasks:
            of Python and asyncio, by name. handles: open files by what they are. children: processes, dead ones that
            nobody waited for included. temporary: files in its temporary folder. busy: metrics that are 0 at rest.
    """

    rss: int
    anonymous: int
    peak: int
    lwps: int
    objects: int
    matchers: int
    threads: Counter
    tasks: Counter
    handles: Counter
    children: int
    temporary: tuple[str, ...]
    busy: dict[str, float]

    def beyond(self, before: Sight) -> list[str]:
        """What is held now and was not before, in words."""
        more = [f"{name} is {value:g}" for name, value in self.busy.items() if value]
        more += [f"{n} more of task {name}" for name, n in (self.tasks - before.tasks).items()]
        more += [f"{n} more open {name}" for name, n in (self.handles - before.handles).items()]
        more += [f"temporary file {name}" for name in self.temporary if name not in before.temporary]
        more += [
            f"{n} threads {name}" for name, n in self.threads.items() if n > _POOLS.get(name, before.threads[name])
        ]
        more += [f"{self.matchers} matchers of formats"] if self.matchers > before.matchers else []
        return more + ([f"{self.children} child processes"] if self.children > before.children else [])

    @property
    def native(self) -> int:
        """Threads that Python did not begin: Paddle's."""
        return self.lwps - self.threads.total()


class Server:
    """A server that runs. url: without /v1. served: the model's name. folder: of its temporary files, log and
    window."""

    def __init__(self, popen: subprocess.Popen, folder: Path, served: str):
        self.popen, self.folder, self.served, self.url = popen, folder, served, ""
        self._proc = Path(f"/proc/{popen.pid}")

    @property
    def log(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def accesses(self) -> dict[str, list[Access]]:
        """The access log by request id."""
        found: dict[str, list[Access]] = {}
        for name, method, _, status, seconds, *tokens in _ACCESS.findall(self.log):
            counts = [int(count) if count else None for count in tokens]
            found.setdefault(name, []).append(Access(method, int(status), float(seconds), *counts))
        return found

    def metrics(self) -> dict[str, float]:
        """/metrics, names without prefix."""
        return read_metrics(httpx.get(f"{self.url}/metrics", timeout=END, trust_env=False, verify=False).text)

    def look(self) -> Sight:
        """What it holds now."""
        metrics = self.metrics()
        window = self.folder / "window"
        window.unlink(missing_ok=True)
        self.popen.send_signal(signal.SIGUSR1)
        _wait(window.exists, END, "the server shows nothing at SIGUSR1")
        shown = json.loads(window.read_text())
        rollup = (self._proc / "smaps_rollup").read_text()
        tasks = list((self._proc / "task").iterdir())
        return Sight(
            rss=_kilobytes(rollup, "Rss"),
            anonymous=_kilobytes(rollup, "Anonymous"),
            peak=_kilobytes((self._proc / "status").read_text(), "VmHWM"),
            lwps=len(tasks),
            objects=shown["objects"],
            matchers=shown["matchers"],
            threads=Counter(shown["threads"]),
            tasks=Counter(shown["tasks"]),
            handles=self._handles(),
            children=sum(len((task / "children").read_text().split()) for task in tasks),
            temporary=tuple(sorted(path.name for path in (self.folder / "temporary").rglob("*"))),
            busy={name: metrics[name] for name in _BUSY},
        )

    def at_rest(self, before: Sight | None = None) -> Sight:
        """What it holds when everybody has left: the first sight with nothing beyond the one before, or the last."""
        until = time.monotonic() + REST
        while True:
            seen = self.look()
            if not seen.beyond(before or seen) or time.monotonic() > until:
                return seen
            time.sleep(0.2)

    def _handles(self) -> Counter:
        kinds: Counter = Counter()
        for handle in (self._proc / "fd").iterdir():
            try:
                target = os.readlink(handle)
            except FileNotFoundError:  # closed since
                continue
            kinds[re.sub(r":\[\d+\]$|/#?\d+ \(deleted\)$", "", target)] += 1
        return kinds

    def end(self) -> int:
        """Its exit code after a SIGTERM.

        Raises:
            subprocess.TimeoutExpired: it does not end.
        """
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(END)


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus' exposition as numbers by name (and labels)."""
    return {name + labels: float(value) for name, labels, value in _METRIC.findall(text)}


@contextmanager
def server(checkpoint: Path | str, flags: Sequence[str], folder: Path) -> Iterator[Server]:
    """A server of a checkpoint, ready. folder: empty, for what it writes."""
    (folder / "temporary").mkdir()
    words = [sys.executable, "-m", "tests.soak.inside", "serve", str(checkpoint), "--server-port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if name != KEYS_VARIABLE}
    environment |= {WINDOW: str(folder / "window"), "TMPDIR": str(folder / "temporary")}
    with open(folder / "log", "wb") as log:
        popen = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    running = Server(popen, folder, Path(checkpoint).name)
    try:
        yield running
    finally:
        popen.kill()
        popen.wait()


def wait_until_ready(running: Server) -> None:
    """Wait for the port, and set the url."""

    def announced() -> bool:
        if running.popen.poll() is not None:
            raise RuntimeError(f"the server ended before it was ready: {running.log[-500:]}")
        return _READY.search(running.log) is not None

    def answers() -> bool:
        try:
            return httpx.get(f"{running.url}/ready", timeout=END, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    _wait(announced, START, "the server does not come up")
    running.url = _READY.search(running.log)[1]
    _wait(answers, START, "the server does not answer")


def _wait(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


def _kilobytes(text: str, name: str) -> int:
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) * 1024
