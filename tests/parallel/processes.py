"""Two ranks as two processes; run as a script it is the program of each rank.

processes.py answers OUT FOLDER QUESTION PORT   under the launcher: answers, then a server; see `answers`
processes.py endless                            commands without end; every rank prints `going` for each
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_ranks(*arguments: str) -> list[subprocess.Popen]:
    """Two processes with the environment of `paddle.distributed.launch`, without its own process."""
    ends = [f"127.0.0.1:{port}" for port in free_ports(2)]
    shared = {
        "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": ",".join(ends), "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_MASTER": f"127.0.0.1:{free_ports(1)[0]}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore", __file__, *arguments],
            env={**os.environ, **shared, "PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": end},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, end in enumerate(ends)
    ]  # fmt: skip


def launch(log_dir: Path, *program: str) -> list[str]:
    """Command that launches a program on two ranks, whose outputs go to `log_dir`/workerlog.<rank>."""
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(log_dir)]
    return [*launcher, *program]


def launch_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def engine_answers(model) -> list[list[int]]:
    """Tokens of answers that an engine's own thread generates together, as a server's does."""
    from paddle_internvl.engine.config import EngineConfig
    from paddle_internvl.engine.engine_thread import EngineThread
    from paddle_internvl.engine.factory import engine_of
    from paddle_internvl.engine.request import Prompt
    from paddle_internvl.generation.config import GenerationConfig

    thread = EngineThread(engine_of(model, model.tokenizer, EngineConfig(session_len=128, cache_tokens=512)))
    thread.start()

    async def answer(length: int) -> list[int]:
        prompt, config = Prompt(list(range(10, 10 + length)), [], None), GenerationConfig(max_new_tokens=9)
        return [token async for piece in thread.stream(prompt, config) for token in piece.tokens]

    async def all_answers() -> list[list[int]]:
        return await asyncio.gather(*(answer(length) for length in (3, 40, 17)))

    try:
        return asyncio.run(all_answers())
    finally:
        thread.close()


def batch_answers(model) -> list[str]:
    """Texts of a batch of answers, one about a picture."""
    import numpy as np
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8))
    about_picture = [{"type": "image", "image": noise}, {"type": "text", "text": "What is it?"}]
    conversations = [[{"role": "user", "content": content}] for content in ("Hello", about_picture)]
    return [response.text for response in model.batch_chat_messages(conversations, {"max_new_tokens": 9})]


def answers(target: str, folder: str, question: str, port: str) -> None:
    """Every rank writes the results of Python, `chat` and `verify` to TARGET.<rank>, then runs `serve` to its end."""
    from paddle_internvl import run_rank, startup

    startup.import_paddle()
    from paddlenlp.transformers import AutoModel

    from paddle_internvl.cli.main import main

    def printed(*arguments: str) -> str:
        with redirect_stdout(StringIO()) as output:
            assert main([*arguments, "--tp", "2"]) == 0
        return output.getvalue().strip()

    results = {}
    for quantized in (False, True):
        model = AutoModel.from_pretrained(folder, tensor_parallel_degree=2, device="cpu", load_in_8bit=quantized)
        results[f"batch {quantized}"] = batch_answers(model)
        results[f"engine {quantized}"] = run_rank(model, engine_answers)
    results["chat"] = printed("chat", folder, "--question", question)
    results["verify"] = printed("verify", folder, folder)
    Path(f"{target}.{model.process_group.rank}").write_text(json.dumps(results))
    model.process_group.barrier()
    sys.exit(main(["serve", folder, "--tp", "2", "--server-port", port]))


def endless() -> None:
    """Commands without models: rank 0 sends, both sum a tensor."""
    import paddle

    from paddle_internvl.parallel.process_group import process_group
    from paddle_internvl.parallel.tensor_parallel import broadcast_command, follow

    group = process_group(2)

    def execute(_name: str, tensor) -> None:
        group.sum(tensor)
        print("going", flush=True)

    if not group.leads:
        follow(group, execute)
    while True:
        tensor = paddle.ones([4])
        with broadcast_command(group, "sum", tensor):
            execute("sum", tensor)


if __name__ == "__main__":
    {"answers": answers, "endless": endless}[sys.argv[1]](*sys.argv[2:])
