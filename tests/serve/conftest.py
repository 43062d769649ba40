"""The bundled checkpoint's model, and servers over a fake engine with its tokenizer."""

import base64
from contextlib import ExitStack

import pytest

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


@pytest.fixture(scope="session")
def picture_url():
    """A bundled picture as a data URL."""
    data = base64.b64encode((ROOT / "demo/assets/shapes.png").read_bytes()).decode()
    return f"data:image/png;base64,{data}"
