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
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convert.command_line import EXIT_OK
from paddle_internvl.cli import conventions
from paddle_internvl.cli.argument_types import boolean, integer, plot_file

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
    parser.add_argument(
        "--use_data_resampling", type=boolean, default=False, metavar="True|False",
        help="draw data sets by the square root of their sizes, for --packed (default: False)",
    )  # fmt: skip
    for name, (kind, default, text) in _PACKING.items():
        help = f"{text} (default: {default})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=_metavar(kind), help=help)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each sample or pack")
    parser.add_argument("--show", type=integer(0), default=3, metavar="N", help="samples shown as text (default: 3)")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw histograms of lengths and tiles")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.training.mixture import read_meta

    read_meta(arguments.meta)  # its faults are shown before Paddle is imported
    folder = chat_folder(arguments.model, weights=False)
    startup.import_paddle()
    from paddle_internvl.training.arguments import DataArguments
    from paddle_internvl.training.dataset import SFTDataset

    data = {name: getattr(arguments, name) for name in _DATA}
    if arguments.packed and not arguments.allow_overflow:
        limit = arguments.max_seq_length or DataArguments.max_seq_length
        data["max_seq_length"] = min(limit, arguments.max_packed_tokens)
    dataset = SFTDataset(arguments.meta, folder, truncation=arguments.truncation == "True", **data)
    samples = _packs(arguments, dataset) if arguments.packed else _samples(dataset, range(len(dataset)))
    if arguments.json:
        fields = _PACK_FIELDS if arguments.packed else ("dataset", "index", *_FIELDS, "error")
        for sample in samples:
            print(json.dumps({name: _plain(sample.get(name)) for name in fields}, ensure_ascii=False), flush=True)
        return EXIT_OK
    from paddle_internvl.cli import dataset_report

    dataset_report.show(samples, dataset.tokenizer, conventions.console(), arguments.show, arguments.plot)
    return EXIT_OK


def _samples(dataset, order: Sequence[int]) -> Iterator[dict]:
    """Samples without pixels in an order, or the data set, line and error of a bad one."""
    from paddle_internvl.progress import bar
    from paddle_internvl.training.mixture import DataError

    with bar("samples", len(order), "sample") as progress:
        for i in order:
            source, annotation = dataset.place(i)
            try:
                sample = dataset.build(i, pixels=False)
            except DataError as error:
                sample = {"dataset": source.name, "index": annotation.index, "error": str(error)}
            yield sample
            progress.update()


def _packs(arguments: argparse.Namespace, dataset) -> Iterator[dict]:
    """Packs in the order that one process draws; then what is not in them, as errors, with --json on stderr."""
    from paddle_internvl.prompt.special_tokens import IMG_CONTEXT
    from paddle_internvl.training.draws import dataset_weights, mixture_draws
    from paddle_internvl.training.packing import PackedDataset

    sizes = [len(part.annotations) for part in dataset.datasets]
    weights = dataset_weights(sizes, arguments.use_data_resampling)
    order = list(mixture_draws(sizes, weights, seed=dataset.arguments.seed))
    faults: list[dict] = []

    def good() -> Iterator[dict]:
        for sample in _samples(dataset, order):
            if "error" in sample:
                faults.append(sample)
            else:
                yield sample

    packed = PackedDataset(
        good(),
        img_context_token_id=dataset.tokenizer.convert_tokens_to_ids(IMG_CONTEXT),
        **{name: getattr(arguments, name) for name in _PACKING},
    )
    yield from packed
    excess = f"more tiles than num_images_expected={arguments.num_images_expected}, in no pack"
    left_out = [(name, index, excess) for name, index in packed.dropped]
    left_out += [(name, index, f"{lost} tokens lost where a pack was split") for name, index, lost in packed.split]
    faults += [{"dataset": n, "index": i, "error": f"{n}, annotation line {i + 1}: {text}"} for n, i, text in left_out]
    if not arguments.json:
        yield from faults
        return
    for fault in faults:
        print(fault["error"], file=sys.stderr)
    print(f"{len(faults)} faults: samples that are not in the packs, or not whole", file=sys.stderr)


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def _metavar(kind: Callable) -> str | None:
    return "True|False" if kind is boolean else None
