"""The bundled model, and engines that answer with it or say what a test wants."""

import socket

import pytest

from tests.checkpoints import ROOT

CHECKPOINT = ROOT / "demo/checkpoints/internvl-tiny"
ASSETS = ROOT / "demo/assets"


@pytest.fixture(scope="session")
def tiny():
    """The bundled model."""
    from paddlenlp.transformers import AutoModel

    return AutoModel.from_pretrained(str(CHECKPOINT))


@pytest.fixture(scope="session")
def host(tiny):
    """The bundled model behind its engine, for all tests together as for all visitors."""
    from paddle_internvl.engine.front import EngineThread
    from paddle_internvl.engine.settings import EngineConfig, engine_of
    from paddle_internvl.webdemo.speaking import Host

    host = Host(lambda: EngineThread(engine_of(tiny, tiny.tokenizer, EngineConfig(cache_tokens=16384))))
    yield host
    host.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def opened():
    """A function from a host to the address of its page, which is closed when the test ends."""
    pytest.importorskip("gradio")
    from paddle_internvl.webdemo.launching import launch, prepare

    demos = []

    def open_page(host) -> str:
        demos.append(prepare(host))
        return launch(demos[-1], host, "127.0.0.1", free_port(), wait=False).rstrip("/")

    open_page.demos = demos
    yield open_page
    for demo in demos:
        demo.close(verbose=False)
