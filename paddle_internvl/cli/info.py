"""Show a checkpoint's architecture, memory, loading plan, and the tokens of a picture. Loads no weights.

examples:
  paddle-internvl info CKPT
  paddle-internvl info configs/tiny/dynamic_gqa.json --size 1920x1080
  paddle-internvl info CKPT --image photo.jpg --json
  paddle-internvl info CKPT --image photo.jpg --plot tiles.png
  paddle-internvl info CKPT --plan --device gpu --tp 2
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

from convert.command_line import EXIT_OK
from convert.sizes import decoder_sizes, tile_sizes
from convert.unused_fields import unused_fields
from paddle_internvl.cli import conventions
from paddle_internvl.cli.argument_types import integer, picture_file

_BYTES = {"float32": 4, "bfloat16": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT|CONFIG", help="checkpoint folder, config.json or hub id")
    picture = parser.add_mutually_exclusive_group()
    picture.add_argument("--image", metavar="F", help="also: tile grid and tokens of this picture")
    picture.add_argument("--size", metavar="WxH", help="also: tile grid and tokens of a picture of this size")
    parser.add_argument("--max-num", type=integer(1), help="tile limit (default: the config's)")
    parser.add_argument(
        "--plot", metavar="OUT", type=picture_file, help="draw --image under its tiles, with tokens, into OUT"
    )
    plan = parser.add_argument_group("loading plan")
    plan.add_argument("--plan", action="store_true", help="instead: what each parameter is loaded from, and how")
    plan.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="of the plan (default: cpu)")
    plan.add_argument("--tp", type=integer(1), default=1, metavar="N", help="ranks of the plan (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def describe(config: dict) -> dict:
    """Fields, parameter counts and memory of a config.json."""
    from paddle_internvl.estimation.weights import parameter_counts

    vision, llm = config["vision_config"], config["llm_config"]
    counts = parameter_counts(config)
    tile, sizes, parameters = tile_sizes(config), decoder_sizes(llm), {**counts.parts, "total": counts.total}
    experts = {}
    if sizes.experts:
        experts = {"experts": asdict(sizes.experts) | {"layers": len(sizes.experts.layers)}}
        parameters["language_model of a token"] = counts.active
    return {
        "architecture": config["architectures"][0],
        "language model": llm["architectures"][0],
        "template": config.get("template"),
        "dtype": config.get("torch_dtype"),
        "vision": {key: vision.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                                    "intermediate_size", "image_size", "patch_size", "norm_type",
                                                    "qk_normalization")},
        "decoder": {key: llm.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                                  "num_key_value_heads", "intermediate_size", "vocab_size",
                                                  "max_position_embeddings", "rope_theta", "rope_scaling")}
        | {"head_dim": sizes.head_dim},
        **experts,
        "tile side": tile.side,
        "tokens per tile": tile.tokens,
        "tiles": [config.get("min_dynamic_patch", 1), config.get("max_dynamic_patch", 6)],
        "parameters": parameters,
        "fields without effect": unused_fields(config),
        "weights bytes": {dtype: counts.total * size for dtype, size in _BYTES.items()},
        "KV cache bytes per token": {dtype: sizes.cached_per_token * size for dtype, size in _BYTES.items()},
    }  # fmt: skip


def _grid(config: dict, width: int, height: int, max_num: int | None):
    from paddle_internvl.preprocess.grid import choose_grid

    return choose_grid(
        width,
        height,
        config.get("min_dynamic_patch", 1),
        max_num or config.get("max_dynamic_patch", 6),
        tile_sizes(config).side,
        config.get("use_thumbnail", False),
    )


def describe_picture(config: dict, width: int, height: int, max_num: int | None) -> dict:
    """Tile grid and tokens of a picture of width x height pixels."""
    grid = _grid(config, width, height, max_num)
    return {
        "size": [width, height],
        "grid (columns x rows)": [grid.columns, grid.rows],
        "thumbnail": grid.thumbnail,
        "tiles": grid.tiles,
        "visual tokens": grid.tiles * tile_sizes(config).tokens,
    }


def _size(arguments: argparse.Namespace) -> tuple[int, int] | None:
    if arguments.size:
        match = re.fullmatch(r"(\d+)[xX](\d+)", arguments.size)
        if not match:
            raise ValueError(f"--size {arguments.size} is no size; write WIDTHxHEIGHT, e.g. 1920x1080")
        return int(match[1]), int(match[2])
    if arguments.image:
        from paddle_internvl.media.images import open_image

        return open_image(arguments.image).size
    return None


def plot(config: dict, image: str, max_num: int | None, target: Path) -> None:
    """Draw a picture's tiles and tokens into a file.

    Raises:
        ValueError: the picture can't be read, or the target's ending names no kind of picture.
    """
    from paddle_internvl.media.images import open_image
    from paddle_internvl.preprocess.tile_drawing import draw_tiles

    picture = open_image(image)
    draw_tiles(picture, _grid(config, *picture.size, max_num), tile_sizes(config).tokens).save(target)


def _cell(value) -> str:
    """A value of a loading plan; of the many tensors of all experts the first and the last."""
    if not isinstance(value, list):
        return str(value)
    return " ".join(map(str, value)) if len(value) <= 4 else f"{value[0]} … {value[-1]} ({len(value)})"


def print_plan(arguments: argparse.Namespace) -> int:
    """Print the loading plan; returns the exit code."""
    from rich.table import Table

    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.cli.info_plan import plan_rows

    rows = plan_rows(chat_folder(arguments.checkpoint), arguments.device, arguments.tp)
    if arguments.json:
        print(json.dumps(rows))
        return EXIT_OK
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    conventions.console().print(table)
    return EXIT_OK


def run(arguments: argparse.Namespace) -> int:
    from convert.folder import read_config
    from convert.mappings import paddle_config
    from paddle_internvl.checkpoints.folder_checks import chat_folder

    if arguments.plan:
        return print_plan(arguments)
    config = paddle_config(read_config(chat_folder(arguments.checkpoint, weights=False)))
    document = describe(config)
    size = _size(arguments)
    if size:
        document["picture"] = describe_picture(config, *size, arguments.max_num)
    if arguments.plot:
        if not arguments.image:
            raise ValueError("--plot draws a picture's tiles; name the picture with --image")
        plot(config, arguments.image, arguments.max_num, arguments.plot)
    if arguments.json:
        print(json.dumps(document, ensure_ascii=False))
        return EXIT_OK
    from paddle_internvl.cli.info_tables import tables

    conventions.print_tables(tables(document))
    return EXIT_OK
