"""Load test of a server with mixed requests: latency and throughput. The last line is one JSON document.

Requests arrive as a Poisson process, whether or not the server keeps up. On a terminal histograms of the times grow
meanwhile. Exit code 1 if none was answered.

examples:
  paddle-internvl bench serve CKPT --rate 4 --requests 100
  paddle-internvl bench serve CKPT --rate 4 --duration 60 --serve-flags "--max-batch-size 8"
  paddle-internvl bench serve --url http://127.0.0.1:23333 --rate 2 --duration 60 --mix picture=1 --plot times.png
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli.argument_types import plot_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", nargs="?", help="serve this for the length of the benchmark")
    parser.add_argument("--url", help="of a server that runs already, without /v1")
    parser.add_argument("--rate", type=float, default=1.0, help="requests per second (default: 1)")
    parser.add_argument("--requests", type=int, help="end after so many (default: 100)")
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="or after so long")
    parser.add_argument("--mix", default="text=0.5,picture=0.4,video=0.1", help="shares (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer (default: 64)")
    parser.add_argument("--ignore-eos", action="store_true", help="let every answer be of --max-tokens")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and contents (default: 0)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="of a request (default: 300)")
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="requests of each kind before (default: 1)")
    parser.add_argument("--api-key", help="of the server (default: $OPENAI_API_KEY)")
    parser.add_argument("--model", help="name in the requests (default: the server's first)")
    parser.add_argument("--serve-flags", default="", metavar="FLAGS", help="flags of the server of CKPT, in one text")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and every request's times there")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw the distribution of times by kind")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.bench import traffic

    if (arguments.url is None) == (arguments.checkpoint is None):
        raise ValueError("give either CKPT or --url")
    if arguments.serve_flags and arguments.url:
        raise ValueError("--serve-flags are of a server of CKPT, not of one that runs already")
    requests = 100 if arguments.requests is None and arguments.duration is None else arguments.requests
    mix = traffic.parse_mix(arguments.mix)
    times = traffic.arrivals(arguments.rate, arguments.seed, requests, arguments.duration)
    if not times:
        raise ValueError(f"no request arrives within {arguments.duration} seconds; raise --rate or --duration")

    import anyio
    from rich.console import Console

    from paddle_internvl.bench import report, server_process

    flags = shlex.split(arguments.serve_flags)
    server = server_process.served(arguments.checkpoint, flags) if arguments.checkpoint else nullcontext(arguments.url)
    with server as url:
        outcomes = anyio.run(_measure, url, arguments, times, mix)
    options = ("rate", "seed", "max_tokens", "ignore_eos", "timeout")
    figures = {"benchmark": "serve", "mix": mix, **{name: getattr(arguments, name) for name in options}}
    figures |= report.summary(outcomes)
    Console(soft_wrap=True).print(report.table(figures))
    print(
        f"{figures['answered']} of {figures['requests']} requests answered in {figures['seconds']:.1f} s: "
        f"{figures['requests_per_second']:.2f} requests and {figures['output_tokens_per_second']:.1f} tokens a second; "
        f"errors: {', '.join(f'{count} x {status}' for status, count in figures['errors'].items()) or 'none'}"
    )
    if arguments.json:
        document = {**figures, "outcomes": [vars(outcome) for outcome in outcomes]}
        arguments.json.write_text(json.dumps(document), encoding="utf-8")
    if arguments.plot:
        from paddle_internvl.bench.plots import draw_load

        title = f"{figures['answered']} of {figures['requests']} requests answered, {arguments.rate:g} a second"
        draw_load(outcomes, title, arguments.plot)
    print(json.dumps(figures))
    return EXIT_OK if figures["answered"] else EXIT_DIFFERENT


async def _measure(url: str, arguments: argparse.Namespace, times: list[float], mix: dict[str, float]) -> list:
    from tqdm import tqdm

    from paddle_internvl.bench import load, traffic
    from paddle_internvl.cli.live_histogram import LiveHistogram

    silent = not sys.stderr.isatty()
    async with load.client(url, arguments.api_key or os.environ.get("OPENAI_API_KEY")) as client:
        fields = {"model": arguments.model or await load.served_model(client), "max_tokens": arguments.max_tokens}
        if arguments.ignore_eos:
            fields["ignore_eos"] = True
        planned = traffic.plan(times, mix, arguments.seed, **fields)
        requests = list(tqdm(planned, "draw", len(times), leave=False, disable=silent))
        for number in range(arguments.warm_up):  # with another seed than the run's
            for kind in mix:
                body = traffic.body(kind, number, arguments.seed + 1, **fields)
                await load.run(client, [traffic.Request(0.0, kind, body)], arguments.timeout)
        with LiveHistogram(len(requests)) as histogram:
            return await load.run(client, requests, arguments.timeout, histogram.add)
