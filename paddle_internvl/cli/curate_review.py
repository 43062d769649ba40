"""Review flagged samples in a browser: accept, reject, undo, by keys; several reviewers at a time.

FLAGGED is the flagged.jsonl of curate filter. Decisions are appended to FLAGGED's flagged.decisions.jsonl, each on disk
before the next sample is shown; curate filter --decisions applies them. A review that is begun again continues.

examples:
  paddle-internvl curate review filtered/flagged.jsonl --root pictures --reviewer ann
  paddle-internvl curate review filtered/flagged.jsonl --server-name 0.0.0.0 --server-port 8080
"""

from __future__ import annotations

import argparse
import logging
from importlib.util import find_spec
from pathlib import Path

from convert.command_line import EXIT_OK

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flagged", metavar="FLAGGED", type=Path, help="flagged.jsonl of curate filter")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the media (default: FLAGGED's)")
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="(default: flagged.decisions.jsonl by FLAGGED)")
    parser.add_argument("--reviewer", default="", metavar="NAME", help="name in the page at first (default: none)")
    parser.add_argument("--server-name", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--server-port", type=int, default=7861, metavar="N", help="port to listen on (default: 7861)")
    parser.add_argument(
        "--allowed-hosts", nargs="+", default=(), metavar="X",
        help="Host headers that are accepted besides this machine's (default: any, but none on a loopback address)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl.curation.review import ReviewQueue
    from paddle_internvl.serve.settings import Settings

    address = {name: getattr(arguments, name) for name in ("server_name", "server_port", "allowed_hosts")}
    Settings(**address)  # checks them
    queue = ReviewQueue(arguments.flagged, arguments.decisions, arguments.root)
    if queue.foreign:
        _log.warning("%d decided samples are not in %s; their decisions stay", queue.foreign, arguments.flagged)
    if find_spec("gradio") is None:
        raise ImportError("the review needs Gradio; pip install 'paddle_internvl[demo]'")
    from paddle_internvl.webdemo.launching import check_port, launch, temporary_folder
    from paddle_internvl.webdemo.review_page import build_review

    check_port(arguments.server_name, arguments.server_port)
    temporary_folder()
    launch(build_review(queue, arguments.reviewer), queue, **address, uploads=False)
    return EXIT_OK
