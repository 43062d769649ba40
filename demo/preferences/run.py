"""Sampled answers -> preference pairs -> MPO on the bundled checkpoint, and its accuracy before and after.

    python -m demo.preferences.run FOLDER [--seed 0]

Every step is a command of `paddle-internvl`, which is printed. A run that was interrupted continues with the same call.
Accuracy is that of `curate`'s own check on questions about held-out scenes. FOLDER is outside of git.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from pathlib import Path

from demo.preferences import crowded
from paddle_internvl.cli.main import main as paddle_internvl

CHECKPOINT = "demo/checkpoints/internvl-tiny"
CHECK = "vqa_score"
ASK = ["--prompt-version", "direct", "--max-new-tokens", "32"]
SAMPLE = [*ASK, "--num-return-sequences", "4", "--temperature", "1", "--top-k", "0"]
GREEDY = [*ASK, "--max-num", "1", "--num-return-sequences", "1", "--top-k", "1"]
RECIPE = "demo/preferences/mpo.json"


def command(*words: str | Path) -> None:
    """Run a command of `paddle-internvl` in this process."""
    words = [str(word) for word in words]
    print("$ paddle-internvl", shlex.join(words), flush=True)
    if paddle_internvl(words):
        raise SystemExit(2)


def align(
    folder: Path, seed: int = 0, checkpoint: str | Path = CHECKPOINT, recipe: str = RECIPE, max_num: int = 1
) -> Path:
    """Sample answers to the training questions, make pairs of them, and train by MPO.

    Args:
        folder: has train.jsonl and pairs.json, as `crowded.write_all` writes them.
        seed: of sampling and training.
        checkpoint: answers the questions, and is trained.
        recipe: of the training.
        max_num: tile limit.
    Returns:
        The trained checkpoint.
    """
    answers, pairs, out = folder / "answers.jsonl", folder / "pairs", folder / "mpo"
    tiles = ["--max-num", str(max_num)]
    command("curate", "sample", folder / "train.jsonl", answers, checkpoint, *SAMPLE, *tiles, "--seed", str(seed))
    command("curate", "pairs", answers, pairs, "--checks", CHECK, "--num-pairs-per-key", "2", "--overwrite")
    if not (out / "config.json").is_file():
        paths = ["--model_name_or_path", checkpoint, "--meta_path", folder / "pairs.json", "--output_dir", out]
        paths += ["--plot", folder / "mpo.png"]
        command("train", recipe, *paths, "--seed", str(seed))
    return out


def accuracy(answers: Path) -> dict[str, float]:
    """Share of right answers by kind of question, and of all.

    Args:
        answers: of `curate sample`, prompt version 'direct'.
    """
    from paddle_internvl.curation.answer_checks import is_correct

    right = defaultdict(list)
    for line in map(json.loads, answers.read_text(encoding="utf-8").splitlines()):
        for kind in (line["kind"], "all"):
            right[kind].append(is_correct(line["response"].strip(), line["answer"], (CHECK,)))
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of scenes, sampling and training")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    held_out = folder / "held_out.jsonl"
    if not (folder / "pairs.json").is_file():
        crowded.write_all(folder, arguments.seed)
    command("curate", "sample", held_out, folder / "before.jsonl", CHECKPOINT, *GREEDY)
    command("curate", "sample", held_out, folder / "after.jsonl", align(folder, arguments.seed), *GREEDY)
    before, after = accuracy(folder / "before.jsonl"), accuracy(folder / "after.jsonl")
    for kind, share in before.items():
        print(f"{kind:12}{share:8.1%} ->{after[kind]:8.1%}")


if __name__ == "__main__":
    main()
