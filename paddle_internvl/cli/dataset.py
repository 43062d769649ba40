"""Show a training data set as the model learns it: tokens, labels, tiles, and every fault with its file and line.

Tokens and labels are those of `train`; no weights are read. Without --json: a table of the data sets, the first samples
as text (learnt tokens are green, or in ⟦brackets⟧ without colours), and the faults. Faulty samples are counted and do
not change the exit code.

examples:
  paddle-internvl dataset meta.json --model CKPT
  paddle-internvl dataset meta.json --model CKPT --max_seq_length 4096 --max_dynamic_patch 6 --plot lengths.png
  paddle-internvl dataset meta.json --model CKPT --json > samples.jsonl
  paddle-internvl dataset meta.json --model CKPT --packed --max_packed_tokens 8192 --num_images_expected 40 --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import conventions
from paddle_internvl.cli.argument_types import boolean, integer, picture_file

_FIELDS = ("input_ids", "labels", "position_ids", "num_tiles", "image_flags")
_PACK_FIELDS = ("input_ids", "labels", "position_ids", "cu_seqlens", "loss_weight", "num_tiles", "samples")
_DATA = {  # flag -> type, help; upstream's names
    "conv_style": (str, "name of the conversation template"),
    "max_seq_length": (integer(1), "most tokens of a sample (default: 8192)"),
    "dynamic_image_size": (boolean, "cut pictures into tiles"),
    "use_thumbnail": (boolean, "add a thumbnail tile to several tiles"),
    "min_dynamic_patch": (integer(1), "fewest tiles of a picture"),
    "max_dynamic_patch": (integer(1), "most tiles of a picture, shared by the pictures of a sample"),
    "group_by_length": (boolean, "False pads every sample to max_seq_length (default: True)"),
    "min_num_frame": (integer(1), "fewest frames of a clip (default: 8)"),
    "max_num_frame": (integer(1), "most frames of a clip (default: 32)"),
    "sampling_method": (str, "frame of each interval of a clip: rand (default) or middle"),
    "seed": (integer(0), "of all random choices (default: 42)"),
}
_PACKING = {
    "max_packed_tokens": (integer(1), 8192, "most tokens of a pack"),
    "num_images_expected": (integer(1), 40, "most tiles of a pack"),
    "max_buffer_size": (integer(1), 20, "packs that are open at a time"),
    "allow_overflow": (boolean, False, "split samples that exceed a pack"),
    "strict_mode": (boolean, False, "pad packs to max_packed_tokens and num_images_expected"),
    "loss_reduction": (str, "token", "weights of the loss: token, sample or square"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("meta", metavar="META.json", type=Path, help="meta JSON of the data sets, as upstream's")
    parser.add_argument("--model", metavar="CKPT", required=True, help="checkpoint folder or hub id: tokenizer, config")
    for name, (kind, text) in _DATA.items():
        parser.add_argument(f"--{name}", type=kind, metavar=_metavar(kind), help=text)
    parser.add_argument(
        "--truncation", choices=("True", "error"), default="error", help="of a sample that is too long (default: error)"
    )
    parser.add_argument("--packed", action="store_true", help="show packs instead of samples")
    for name, (kind, default, text) in _PACKING.items():
        help = f"{text} (default: {default})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=_metavar(kind), help=help)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each sample or pack")
    parser.add_argument("--show", type=integer(0), default=3, metavar="N", help="samples shown as text (default: 3)")
    parser.add_argument("--plot", type=picture_file, metavar="FILE", help="draw histograms of lengths and tiles")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.training.mixture import read_meta

    read_meta(arguments.meta)  # its faults are shown before Paddle is imported
    folder = chat_folder(arguments.model, weights=False)
    startup.import_paddle()
    from paddle_internvl.training.dataset import SFTDataset

    data = {name: getattr(arguments, name) for name in _DATA}
    dataset = SFTDataset(arguments.meta, folder, truncation=arguments.truncation == "True", **data)
    samples = _samples(dataset, pixels=arguments.packed)
    if arguments.packed:
        samples = _packs(arguments, samples)
    if arguments.json:
        fields = _PACK_FIELDS if arguments.packed else ("dataset", "index", *_FIELDS, "error")
        for sample in samples:
            print(json.dumps({name: _plain(sample.get(name)) for name in fields}, ensure_ascii=False), flush=True)
        return EXIT_OK
    from paddle_internvl.cli import dataset_report

    dataset_report.show(samples, dataset.tokenizer, conventions.console(), arguments.show, arguments.plot)
    return EXIT_OK


def _samples(dataset, pixels: bool) -> Iterator[dict]:
    """Every sample, or its data set, line and error."""
    from paddle_internvl.progress import bar
    from paddle_internvl.training.mixture import DataError

    with bar("samples", len(dataset), "sample") as progress:
        for i in range(len(dataset)):
            source, annotation = dataset.place(i)
            try:
                sample = dataset.build(i, pixels)
            except DataError as error:
                sample = {"dataset": source.name, "index": annotation.index, "error": str(error)}
            yield sample
            progress.update()


def _packs(arguments: argparse.Namespace, samples: Iterator[dict]) -> Iterator[dict]:
    """Packs of the samples without errors; samples that can't be packed are errors of their own."""
    from paddle_internvl.training.packing import PackedDataset

    faulty: list[dict] = []

    def good() -> Iterator[dict]:
        for sample in samples:
            if "error" in sample:
                faulty.append(sample)
            else:
                yield sample

    yield from PackedDataset(good(), **{name: getattr(arguments, name) for name in _PACKING})
    if not arguments.json:
        yield from faulty


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def _metavar(kind: Callable) -> str | None:
    return "True|False" if kind is boolean else None
