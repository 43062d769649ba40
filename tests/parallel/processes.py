"""Two ranks as two processes, as a launcher starts them; run as a script it is what each of them does.

python processes.py parity OUT.npz FOLDER...      what a shared model of each folder computes, written by rank 0
python processes.py endless FOLDER                answers without end; rank 0 says `going` once it has begun
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_ranks(*words: str) -> list[subprocess.Popen]:
    """Two processes with the environment of `paddle.distributed.launch`, without it."""
    ends = [f"127.0.0.1:{port}" for port in free_ports(2)]
    shared = {
        "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": ",".join(ends), "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_MASTER": f"127.0.0.1:{free_ports(1)[0]}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore", __file__, *words],
            env={**os.environ, **shared, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": end},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, end in enumerate(ends)
    ]  # fmt: skip


def results(model) -> dict[str, np.ndarray]:
    """What a model computes in several ways: logits, greedy and sampled tokens, beams, answers of an engine."""
    import paddle

    from tests.random_checkpoints import random_pixels

    ids = np.random.default_rng(0).integers(3, 1000, (1, 24))
    ids[0, 2 : 2 + 3 * model.num_image_token] = 1002
    pixels, ids = paddle.to_tensor(random_pixels(3, model.config.tile_side)), paddle.to_tensor(ids)
    with paddle.no_grad():
        logits = model(pixels, ids).logits.numpy()
    sampling = {"do_sample": True, "top_k": 20, "temperature": 1.5, "seed": 3}
    conversations = [[{"role": "user", "content": text}] for text in ("Hello", "What is it? " * 9, "And now?")]
    settings = {"max_new_tokens": 9, "ignore_eos": True}
    answers = model.batch_chat_messages(conversations, settings)
    return {
        "logits": logits,
        "greedy": model.generate(pixels, ids, max_new_tokens=12).numpy(),
        "sampled": model.generate(pixels, ids, max_new_tokens=12, **sampling).numpy(),
        "beams": model.generate(pixels, ids, max_new_tokens=6, num_beams=3).numpy(),
        "engine": np.array([answer.token_ids for answer in answers]),
        "thread": np.array(served(model, settings)),
    }


def served(model, settings: dict) -> list[list[int]]:
    """Tokens of answers that an engine's own thread makes together, as a server's does."""
    from paddle_internvl.engine.front import EngineThread
    from paddle_internvl.engine.request import Prompt
    from paddle_internvl.engine.settings import EngineConfig, engine_of
    from paddle_internvl.generation.config import GenerationConfig

    front = EngineThread(engine_of(model, model.tokenizer, EngineConfig(session_len=128, cache_tokens=512)))
    front.start()

    async def answer(length: int) -> list[int]:
        prompt = Prompt(list(range(10, 10 + length)), [], None)
        return [token async for piece in front.stream(prompt, GenerationConfig(**settings)) for token in piece.tokens]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*(answer(length) for length in (3, 40, 17)))

    try:
        return asyncio.run(all_of_them())
    finally:
        front.close()


def load(folder: str):
    """The model on rank 0; None on the others, once that has dismissed them."""
    from paddlenlp.transformers import AutoModel

    few = {"load_in_8bit": True} if Path(folder).name.startswith("int8") else {}
    try:
        return AutoModel.from_pretrained(folder, tensor_parallel_degree=2, device="cpu", **few)
    except SystemExit:
        return None


def parity(target: str, *folders: str) -> None:
    found = {}
    for folder in folders:
        model = load(folder)
        if model is not None:
            found |= {f"{Path(folder).name}/{name}": value for name, value in results(model).items()}
            model.team.dismiss()
    if found:
        np.savez(target, **found)


def endless(folder: str) -> None:
    model = load(folder)
    while True:
        model.chat_messages([{"role": "user", "content": "Hello"}], {"max_new_tokens": 50, "ignore_eos": True})
        print("going", flush=True)


if __name__ == "__main__":
    import paddle_internvl  # noqa: F401

    {"parity": parity, "endless": endless}[sys.argv[1]](*sys.argv[2:])
