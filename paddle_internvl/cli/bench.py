"""Benchmarks: a model's stages and training steps beside PyTorch, growth with the input, load on a server.

examples:
  paddle-internvl bench model configs/internvl2_5-1b.json
  paddle-internvl bench train
  paddle-internvl bench growth --plot plots
  paddle-internvl bench serve CKPT --rate 4 --requests 100
  paddle-internvl bench serve --url http://127.0.0.1:23333 --rate 2 --duration 60 --mix text=0.5,picture=0.4,video=0.1
"""

from __future__ import annotations

import argparse

from paddle_internvl.cli import bench_growth, bench_model, bench_serve, bench_train
from paddle_internvl.cli.conventions import add_subcommands

_BENCHMARKS = {"model": bench_model, "train": bench_train, "growth": bench_growth, "serve": bench_serve}
_DIFFERENT = {"growth": "a curve grows faster than its bound", "serve": "no request was answered"}  # exit code 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subcommands(parser, _BENCHMARKS, "benchmark", "WHAT", _DIFFERENT)


def run(arguments: argparse.Namespace) -> int:
    return _BENCHMARKS[arguments.benchmark].run(arguments)
