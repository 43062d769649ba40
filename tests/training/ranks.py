"""Training on two ranks as two processes; run as a script it is the program of each rank.

ranks.py OUTPUT: optimises preferences with sharding stage 3, in OUTPUT/mpo; trains with stage 2, in OUTPUT/stage2; goes
on from its first checkpoint with stage 1, in OUTPUT/stage1; then trains with stage 3 until rank 0 is killed while it
saves its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CONFIG = {
    "max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 1, "device": "cpu", "learning_rate": 1e-3,
    "warmup_ratio": 0.25, "shuffle": False,
}  # fmt: skip


def start_ranks(output: Path, count: int = 2) -> list[subprocess.Popen]:
    """Processes with the environment of `paddle.distributed.launch`."""
    from tests.parallel.processes import free_ports

    ends = [f"127.0.0.1:{port}" for port in free_ports(count)]
    shared = {
        "PADDLE_TRAINERS_NUM": str(count), "PADDLE_TRAINER_ENDPOINTS": ",".join(ends), "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_MASTER": f"127.0.0.1:{free_ports(1)[0]}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    places = [
        {"PADDLE_TRAINER_ID": str(rank), "PADDLE_RANK_IN_NODE": str(rank), "PADDLE_CURRENT_ENDPOINT": end}
        for rank, end in enumerate(ends)
    ]
    command = [sys.executable, "-W", "ignore", __file__, str(output)]
    return [
        subprocess.Popen(command, env={**os.environ, **shared, **more}, stderr=subprocess.PIPE, text=True)
        for more in places
    ]


def samples() -> list[dict]:
    """Samples with a picture and text alone in turn: the second of two ranks has text alone, once without labels."""
    from paddle_internvl.prompt.encode import IGNORED
    from tests.training.loop import run_samples

    short = sorted(run_samples(), key=lambda sample: len(sample["input_ids"]))
    pictures, texts = ([s for s in short if bool(s["num_tiles"]) == kind] for kind in (True, False))
    texts[1] = {**texts[1], "labels": [IGNORED] * len(texts[1]["labels"])}
    return [sample for pair in zip(pictures[:4], texts[:4]) for sample in pair]


def run(output: Path, **changes) -> None:
    """Train the whole model, with a loss on held-out samples."""
    from paddle_internvl.training import train
    from tests.training.goldens import CHECKPOINT, FOLDER

    held_out = {"eval_meta_path": str(FOLDER / "packing/held_out.json"), "per_device_eval_batch_size": 1}
    config = {**CONFIG, **held_out, "model_name_or_path": str(CHECKPOINT), "output_dir": str(output)}
    train({**config, **changes}, dataset=samples())


def pairs(folder: Path) -> list[dict]:
    """Pairs with pictures and of text alone, whose chosen answers have the same number of tokens."""
    from tests.training.preference_pairs import golden_items, pairs_of

    folder.mkdir(parents=True, exist_ok=True)
    return list(
        pairs_of(folder, [{**item, "chosen": "a cat is red. Final answer: yes"} for item in golden_items()[:4]])
    )


def run_mpo(output: Path, data: Path, **changes) -> None:
    """Two steps of preference optimisation of adapters, with stored log-probabilities of the reference model."""
    from paddlenlp.transformers import AutoModel

    from paddle_internvl.training import train
    from tests.training.goldens import CHECKPOINT

    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    config = {**CONFIG, "warmup_ratio": 0.0, "max_steps": 2, "save_strategy": "no", "output_dir": str(output)}
    config |= {"use_llm_lora": 4, "reference_log_probs": str(output / "reference.jsonl"), **changes}
    train(config, model=model, dataset=pairs(data), method="mpo")


def _main(output: str) -> None:
    from paddle_internvl import startup

    startup.import_paddle()
    from paddle_internvl.training import checkpoint_folders

    write_mark = checkpoint_folders.write_mark

    def write_or_die(folder: Path, content: dict) -> None:
        if content["step"] == CONFIG["max_steps"]:
            os.kill(os.getpid(), signal.SIGKILL)
        write_mark(folder, content)

    rank, folder = os.environ["PADDLE_TRAINER_ID"], Path(output)
    run_mpo(folder / "mpo", folder / f"pairs{rank}", sharding="stage3")
    run(folder / "stage2", gradient_accumulation_steps=2, sharding="stage2")
    first = folder / "stage2/checkpoint-2"
    run(folder / "stage1", gradient_accumulation_steps=2, sharding="stage1", resume_from_checkpoint=str(first))
    checkpoint_folders.write_mark = write_or_die
    run(folder, gradient_accumulation_steps=2, sharding="stage3", recompute=True)


if __name__ == "__main__":
    _main(sys.argv[1])
