"""`demo --url`: answers, counts and facts of a server of ours, and of one that counts nothing; errors in one line."""

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.server_host import ServerHost
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.streaming_session import GenerationOptions, prompt_options
from tests.random_checkpoints import ROOT
from tests.serve.running import FakeEngineThread, running
from tests.webdemo.conftest import ASSETS
from tests.webdemo.test_streaming_session import OPTIONS, TOUR, answers_of_the_tour, ask, attached


@pytest.fixture(scope="module")
def server(host):
    """A server of the bundled model."""
    with running(host.engine) as served:
        yield served


@pytest.fixture(scope="module")
def remote(server):
    made = ServerHost(server.url)
    yield made
    made.close()


@pytest.mark.parametrize("stop", TOUR, ids=lambda stop: "+".join(stop["pictures"]) or "talk")
def test_answers_are_those_of_the_tour(remote, stop):
    """Pictures, several of them, clips and rounds reach the server as the page of a checkpoint has them."""
    for round_, _ in asyncio.run(answers_of_the_tour(remote, stop, rounds=2, keep_files=True)):
        assert round_.timing.tokens > 1 or len(round_.answer) < 3


def test_counts_and_grids_are_those_of_the_checkpoint(host, remote):
    media = asyncio.run(attached(("wide.png", "shapes.png", "clip.gif"), keep_files=True))
    state = SessionState([Round("What is it?", media[1:2], "A star.", "stop")])
    options = prompt_options("You are InternVL-tiny.", 6, False, True)
    ours, theirs = (each.answers.cost(state, "And now?", media, options) for each in (host, remote))
    assert theirs == ours and theirs.total > theirs.visual > 256


def test_the_page_shows_the_server_s_model(remote, server):
    handlers, state = Handlers(remote), SessionState()
    strip = handlers.strip("en", state)
    assert "tiny</span>" in strip and "parameters" in strip and f"127.0.0.1:{server.port}" in strip
    language, system, tiles, limit = handlers.on_load(SimpleNamespace(headers={"accept-language": "zh-CN"}))
    assert (language, system, tiles) == ("zh", "", 12) and limit["maximum"] == remote.facts("")["max_model_len"] - 1
    box = {"text": "What?", "files": [str(ASSETS / "wide.png")]}
    shown = asyncio.run(handlers.preview(box, None, 8, 6, "", False, True, "en", state))
    assert "wide.png" in shown and "thumbnail" in shown and 'class="total"' in shown


def test_settings_reach_the_server_and_leaving_ends_the_request(tiny):
    engine = FakeEngineThread(tiny, tiny.tokenizer, text="one two three four five six seven eight", hold=4)
    with running(engine) as served:
        remote, state, round_ = ServerHost(served.url), SessionState(), Round("hello")

        async def leave():
            options = GenerationOptions("Be brief.", 0.7, 0.8, 1.2, 50, 3)
            asyncio.get_running_loop().call_later(0.5, engine.go.set)
            await ask(remote, state, round_, options, stop_after=2)

        asyncio.run(leave())
        ((prompt, config),) = engine.asked
        remote.close()
    assert (config.temperature, config.top_p, config.repetition_penalty, config.max_new_tokens) == (0.7, 0.8, 1.2, 50)
    assert "Be brief." in tiny.tokenizer.decode(prompt.ids) and round_.ending == "stopped" and round_.answer


def test_a_server_of_another_project(remote, monkeypatch):
    """It lists a name alone and counts no tokens: the page shows what is known."""
    monkeypatch.setattr(remote, "_listed", {"id": "other", "owned_by": "vllm"})
    monkeypatch.setattr(remote, "_counts", False)
    handlers, state = Handlers(remote), SessionState()
    assert handlers.strip("en", state).count("<span>") == 2  # name and address
    box = {"text": "What?", "files": [str(ASSETS / "wide.png")]}
    shown = asyncio.run(handlers.preview(box, None, 8, 6, "", False, True, "en", state))
    assert "wide.png" in shown and 'class="total"' not in shown


def test_an_error_of_the_server_is_the_answer_s(remote):
    round_ = Round("hello " * 20_000)
    asyncio.run(ask(remote, SessionState(), round_, OPTIONS))
    assert round_.ending == "error" and "400" in round_.error


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--url", "http://127.0.0.1:1"], "no server answers at http://127.0.0.1:1"),
        (["CKPT", "--url", "http://127.0.0.1:1"], "give either CKPT or --url"),
        (["--url", "http://127.0.0.1:1", "--dtype", "float32"], "--dtype has no meaning for a server"),
        (["--key", "k"], "--key has no meaning for a checkpoint"),
    ],
)
def test_refusals(flags, message, capsys):
    pytest.importorskip("gradio")
    assert main(["demo", "--server-port", "0", *flags] if "--key" in flags else ["demo", *flags]) == 2
    assert message in capsys.readouterr().err


def test_paddle_is_not_imported(server):
    """Model, page and an answer of a process without Paddle."""
    pytest.importorskip("gradio")
    code = f"""
import asyncio, json, sys
from paddle_internvl.webdemo import launching
from paddle_internvl.webdemo.server_host import ServerHost
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.streaming_session import GenerationOptions, StreamingSession
host = ServerHost({server.url!r})
launching.prepare(host)
state = SessionState([Round("hello")])
async def ask():
    async for _ in StreamingSession(host).answer(state, state.rounds[0], GenerationOptions("", 0, 1, 1, 16, 6)):
        pass
asyncio.run(ask())
print(json.dumps([state.rounds[0].ending, state.rounds[0].answer, "paddle" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ending, answer, paddle = json.loads(done.stdout)
    assert ending in ("stop", "length") and answer and not paddle
