"""The bundled checkpoint's model, a client of it behind its engine, and servers over a fake engine."""

import base64
from contextlib import ExitStack

import httpx
import openai
import pytest

from paddle_internvl.engine.config import EngineConfig
from paddle_internvl.engine.engine_thread import EngineThread
from paddle_internvl.engine.factory import engine_of
from tests.random_checkpoints import ROOT
from tests.serve.running import FakeEngineThread, running

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"


@pytest.fixture(scope="session")
def tiny():
    """The bundled model."""
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(CHECKPOINT))


@pytest.fixture
def serve(tiny):
    """(settings of the fake engine, a loader, settings) -> a server that runs until the test ends."""
    with ExitStack() as stack:

        def start(engine=None, loader=None, **settings):
            fake = FakeEngineThread(tiny, tiny.tokenizer, **(engine or {}))
            return stack.enter_context(running(fake, loader, **settings))

        yield start


@pytest.fixture(scope="module")
def engine_client(tiny):
    """OpenAI's client of the bundled model 'tiny' behind its engine."""
    thread = EngineThread(engine_of(tiny, tiny.tokenizer, EngineConfig(cache_tokens=8192)))
    thread.start()
    with running(thread, served_model_name="tiny") as served, httpx.Client(trust_env=False, timeout=60) as http:
        yield openai.OpenAI(api_key="-", base_url=f"{served.url}/v1", http_client=http, max_retries=0)
    thread.close()


@pytest.fixture(scope="session")
def picture_url():
    """A bundled picture as a data URL."""
    data = base64.b64encode((ROOT / "demo/assets/shapes.png").read_bytes()).decode()
    return f"data:image/png;base64,{data}"
