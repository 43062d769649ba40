"""Train a model, parts of it, or LoRA adapters: supervised fine-tuning (SFT), or preferences with --method mpo.

CONFIG holds upstream's argument names and those of PaddleNLP's TrainingArguments; --KEY VALUE overrides one. OUTPUT/
gets metrics.jsonl, a line for each optimizer step, and at the end the checkpoint, or the adapters of a LoRA run.

examples:
  paddle-internvl train run.json
  paddle-internvl train run.json --learning_rate 1e-5 --freeze_backbone True
  paddle-internvl train run.json --model_name_or_path CKPT --meta_path meta.json --use_llm_lora 16 --output_dir out
  paddle-internvl train run.json --method mpo --meta_path pairs.json --output_dir out
  paddle-internvl train run.json --vision_path CKPT --llm_path LLM --conv_style internvl2_5 --output_dir out
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from convert.command_line import EXIT_OK
from convert.folder import read_json

_REQUIRED = ("meta_path", "output_dir")
_PARTS = ("vision_path", "llm_path")  # which a model is assembled of, in place of model_name_or_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="JSON or YAML file of the run's arguments")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="--KEY VALUE", help="arguments of the run")


def run(arguments: argparse.Namespace) -> int:
    from paddle_internvl import startup
    from paddle_internvl.checkpoints.folder_checks import chat_folder
    from paddle_internvl.training.mixture import read_meta

    config = {**read_recipe(arguments.config), **_overrides(arguments.overrides)}
    method = config.pop("method", "sft")
    needed = (*(() if any(config.get(name) for name in _PARTS) else ("model_name_or_path",)), *_REQUIRED)
    missing = [name for name in needed if not config.get(name)]
    if missing:
        raise ValueError(f"{arguments.config}: {missing[0]} is missing; needed: {', '.join(needed)}")
    for name in ("meta_path", "eval_meta_path"):  # faults of data and model are shown before Paddle is imported
        if config.get(name):
            read_meta(config[name])
    if config.get("model_name_or_path"):
        config["model_name_or_path"] = str(chat_folder(config["model_name_or_path"]))
    startup.import_paddle()
    startup.keep_freed_memory(startup.TRAINING_BLOCK)
    from paddle_internvl.jsonl import read_objects
    from paddle_internvl.training.metrics import METRICS
    from paddle_internvl.training.reader import SKIPPED
    from paddle_internvl.training.reporting import summary
    from paddle_internvl.training.run import train

    try:
        train(config, method=method)
    except (MemoryError, FloatingPointError) as error:  # one line
        raise ValueError(str(error)) from error
    if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        print(summary(read_objects(Path(config["output_dir"]) / METRICS)))
        report = Path(config["output_dir"]) / SKIPPED
        if skipped := read_objects(report):
            print(f"{len(skipped)} bad samples were skipped: {report}", file=sys.stderr)
        print(f"trained: {config['output_dir']}")
    return EXIT_OK


def read_recipe(file: Path) -> dict:
    """The arguments of a recipe, a JSON or YAML file.

    Raises:
        ValueError: no such file, or no object of arguments.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist; give the JSON or YAML file of the run's arguments")
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    else:
        config = read_json(file)
    if not isinstance(config, dict):
        raise ValueError(f"{file}: an object of arguments is needed")
    return config


def _overrides(words: Sequence[str]) -> dict:
    """Pairs of --KEY VALUE; values are JSON, True, False, None or text."""
    literals = {"True": True, "False": False, "None": None}
    config = {}
    for flag, value in zip(words[::2], [*words[1::2], None]):
        if not flag.startswith("--") or value is None or value.startswith("--"):
            raise ValueError(f"{flag}: arguments are given as --KEY VALUE")
        try:
            config[flag[2:]] = literals[value] if value in literals else json.loads(value)
        except ValueError:
            config[flag[2:]] = value
    return config
