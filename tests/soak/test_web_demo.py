"""Memory of the web demo over 300 questions with pictures and clips.

`pytest -m soak tests/soak/test_web_demo.py -s` runs it, and prints the curve.
"""

import asyncio
from dataclasses import astuple

import pytest

from paddle_internvl.bench.machine import resident
from paddle_internvl.serve.server import load_engine
from paddle_internvl.serve.settings import Settings
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.streaming_session import GenerationOptions
from tests.random_checkpoints import ROOT

pytestmark = pytest.mark.soak
TURNS, WARM, GROWTH = 300, 30, 16  # questions; those before memory is compared; MiB
ASSETS = ROOT / "demo/assets"


def test_memory_is_flat():
    host = EngineHost(lambda _adapter: load_engine(str(ROOT / "demo/checkpoints/internvl-tiny"), Settings()))
    handlers, options = Handlers(host), astuple(GenerationOptions("", 0, 1, 1, 64, 6))

    async def ask() -> list[float]:
        state, curve = SessionState(), []
        for turn in range(TURNS):
            if turn % 10 == 0:
                handlers.clear(state)
            files = [str(ASSETS / "shapes.png")] if turn % 2 == 0 else []
            clip = str(ASSETS / "clip.gif") if turn % 10 == 7 else None
            box = {"text": "Describe the image.", "files": files}
            async for _ in handlers.ask(box, clip, 8, "en", *options, state):
                pass
            assert state.rounds[-1].error is None
            curve.append(resident()[0] / 2**20)
        return curve

    curve = asyncio.run(ask())
    host.close()
    print("MiB after every 30th question:", [round(each) for each in curve[WARM - 1 :: 30]])
    assert curve[-1] - curve[WARM - 1] < GROWTH
