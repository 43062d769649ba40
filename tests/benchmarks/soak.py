"""A server under mixed load for as long as many requests take, and whether it is the same afterwards.

    python -m tests.benchmarks.soak [CKPT] [--requests 1000] [--seed 0] [--json FILE]

Starts `paddle-internvl serve CKPT` with small limits and sends it text, pictures, pairs, clips and conversations, 16 at
a time. A fifth of the clients leave before their answer is there, a twentieth are malicious. Every answer must be the
Python API's, every attack must get its 4xx, and nothing may be left: no KV block, slot, task, thread, open file,
temporary file, process or socket. Memory (RSS, and the anonymous part of it, of /proc/PID/smaps_rollup, when nobody
asks) may be at most a tenth larger after the second half of the requests than after the first; a warm-up that sends
everything comes before. The last line is JSON. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import anyio

from paddle_internvl import startup
from tests.random_checkpoints import ROOT

_MIB = 2**20


def print_table(report: dict) -> None:
    """What was sent, how clients left, and what the server held after each part."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    for title in ("sent", "kinds", "left", "left_in_the_log", "retried_after_429", "highest", "metrics"):
        words = ", ".join(f"{name} {count:g}" for name, count in sorted(report[title].items()))
        console.print(f"{title.replace('_', ' ')}: {words or 'none'}")
    table = Table("", *report["sights"], box=None)
    rows = {
        "RSS, MiB": lambda sight: f"{sight['rss'] / _MIB:.1f}",
        "anonymous, MiB": lambda sight: f"{sight['anonymous'] / _MIB:.1f}",
        "highest RSS, MiB": lambda sight: f"{sight['peak'] / _MIB:.1f}",
        "objects of Python": lambda sight: f"{sight['objects']:,}",
        "matchers of formats": lambda sight: sight["matchers"],
        "threads": lambda sight: sight["lwps"],
        "of Python": lambda sight: sum(sight["threads"].values()),
        "asyncio tasks": lambda sight: sum(sight["tasks"].values()),
        "open files and sockets": lambda sight: sum(sight["handles"].values()),
        "child processes": lambda sight: sight["children"],
        "temporary files": lambda sight: len(sight["temporary"]),
        "KV blocks held": lambda sight: sight["busy"]["engine_blocks_used"],
    }
    for title, of in rows.items():
        table.add_row(title, *(str(of(sight)) for sight in report["sights"].values()))
    console.print(table)
    for fault in report["faults"][:50]:
        console.print(f"FAULT {fault}", markup=False)
    verdict = "passed" if report["passed"] else f"{len(report['faults'])} faults"
    console.print(f"{report['requests']} requests in {report['seconds']} s: {verdict}")


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "demo/checkpoints/internvl-tiny")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    startup.import_paddle()
    from paddlenlp.transformers import AutoModel
    from tqdm import tqdm

    from tests.soak.running import soak

    model = AutoModel.from_pretrained(str(arguments.checkpoint))
    with tqdm(desc="requests, warm-up included", disable=not sys.stderr.isatty()) as bar:

        def on_request(sent, fault) -> None:
            bar.update()
            if fault:
                name = getattr(sent.request, "kind", "")  # of a question
                print(f"fault: {sent.kind} {name}: {fault}", file=sys.stderr)

        async def run() -> dict:
            return await soak(model, arguments.checkpoint, arguments.requests, arguments.seed, on_request=on_request)

        report = anyio.run(run)
    print_table(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
