"""Streaming sessions: answers grow to the model's, errors are shown, leaving cancels."""

import asyncio
import json
from dataclasses import astuple, replace

import pytest

from paddle_internvl.engine.request import QueueFullError, RequestFailedError
from paddle_internvl.webdemo.display import messages
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.session import Round, SessionState
from paddle_internvl.webdemo.streaming_session import GenerationOptions, StreamingSession, draw_answer_boxes
from paddle_internvl.webdemo.uploads import Receiver
from tests.serve.running import FakeEngineThread
from tests.webdemo.conftest import ASSETS

OPTIONS = GenerationOptions("You are InternVL-tiny.", 0, 1, 1, 64, 6)
TOUR = json.loads((ASSETS / "tour.json").read_text(encoding="utf-8"))


async def attached(names, keep_files=False):
    receiver = Receiver(448, keep_files=keep_files)
    paths = [str(ASSETS / name) for name in names]
    return tuple([await (receiver.clip(p, 4) if p.endswith("gif") else receiver.picture(p)) for p in paths])


async def ask(host, state, round_, options=OPTIONS, stop_after=None):
    """The answer's lengths, as it grew."""
    state.rounds.append(round_)
    steps, lengths = StreamingSession(host).answer(state, round_, options), []
    async for _ in steps:
        lengths.append(len(round_.answer or ""))
        if len(lengths) == stop_after:
            break
    await steps.aclose()
    return lengths


async def answers_of_the_tour(host, stop, rounds, keep_files=False):
    """The first rounds of one conversation, whose answers are as expected, each with its answer's lengths."""
    state, media, answered = SessionState(), await attached(stop["pictures"], keep_files), []
    for question, expected in stop["questions"][:rounds]:
        round_ = Round(question, media)
        answered.append((round_, await ask(host, state, round_)))
        assert (round_.answer, round_.ending, round_.error) == (expected, "stop", None)
        media = ()
    return answered


@pytest.mark.parametrize("stop", TOUR, ids=lambda stop: "+".join(stop["pictures"]) or "talk")
def test_answers_are_those_of_the_tour(host, stop):
    """demo/assets/tour.json holds what the model's own API answers; rounds of one conversation."""
    for round_, lengths in asyncio.run(answers_of_the_tour(host, stop, rounds=3)):
        assert lengths == sorted(lengths) and (len(set(lengths)) > 3 or len(round_.answer) < 20), "it did not grow"


def fake(tiny, **options):
    return EngineHost(lambda _adapter: FakeEngineThread(tiny, tiny.tokenizer, **options))


def test_thoughts_are_kept_apart(tiny):
    """And put before their answer in the next prompt; asking again forgets them."""
    host, state, round_ = fake(tiny, text="<think>two shapes</think>\na circle"), SessionState(), Round("hello")
    asyncio.run(ask(host, state, round_, replace(OPTIONS, thinking=True)))
    assert (round_.thoughts, round_.answer, round_.ending) == ("two shapes", "a circle", "stop")
    assert tiny.tokenizer.decode(host.engine.asked[0][0].ids).count("</think>") == 1  # of the system message
    answered = {"role": "assistant", "content": "a circle", "reasoning_content": "two shapes"}
    assert state.messages("And?", ())[1] == answered
    folded, answer, timing = messages([round_], "zh")[1:]
    assert folded["metadata"] == {"title": "思考过程", "status": "done"} and folded["content"] == "two shapes"
    assert "metadata" not in answer
    round_.reset_answer()
    assert round_.thoughts is None


@pytest.mark.parametrize(
    "error",
    [QueueFullError("20 answers are round_ for already"), RequestFailedError("out of memory", True), TypeError("odd")],
)
def test_the_real_error(tiny, error):
    state, round_ = SessionState(), Round("hello")
    asyncio.run(ask(fake(tiny, fail=2, error=error), state, round_))
    assert (round_.ending, round_.error) == ("error", str(error))
    assert [m["content"][0]["text"] for m in state.messages("again", ())] == ["again"], "the model hears of a failure"


@pytest.mark.parametrize(
    "wrong, message",
    [({"max_num": 0}, "max_num"), ({"max_num": 10**9}, "max_num"), ({"temperature": None}, "temperature"),
     ({"temperature": float("nan")}, "temperature"), ({"top_p": 7}, "top_p"),
     ({"repetition_penalty": 0}, "repetition_penalty"), ({"max_new_tokens": 0}, "max_new_tokens"),
     ({"system": "x" * 10**7}, "shorten")],
)  # fmt: skip
def test_invalid_options(tiny, wrong, message):
    round_ = Round("hello")
    options = GenerationOptions(**{**OPTIONS.__dict__, **wrong})
    asyncio.run(ask(fake(tiny), SessionState(), round_, options))
    assert round_.ending == "error" and message in round_.error


def test_leaving_stops_the_engine(tiny):
    host, state, round_ = fake(tiny, hold=3), SessionState(), Round("hello")
    asyncio.run(ask(host, state, round_, stop_after=2))
    assert host.engine.cancelled == 1 and round_.ending == "stopped" and round_.answer
    assert [m["role"] for m in state.messages("go on", ())] == ["user", "assistant", "user"]


def test_settings_reach_the_engine(tiny):
    host = fake(tiny)
    asyncio.run(ask(host, SessionState(), Round("hello"), GenerationOptions("Be brief.", 0.7, 0.8, 1.2, 5, 3)))
    ((prompt, config),) = host.engine.asked
    assert (config.samples, config.temperature, config.top_p, config.repetition_penalty, config.max_new_tokens) == (
        True, 0.7, 0.8, 1.2, 5,
    )  # fmt: skip
    assert "Be brief." in tiny.tokenizer.decode(prompt.ids)


def test_boxes_are_drawn_on_the_last_picture():
    shapes, two = asyncio.run(attached(("shapes.png", "two.png")))
    earlier = Round("What is it?", (shapes, two), "things", "stop")
    for attachments, count in (((shapes,), 1), ((shapes, two), 2), ((), 2)):
        round_ = Round("Where?", attachments, "red circle[[50, 50, 300, 300]]", "stop")
        draw_answer_boxes(SessionState([earlier, round_]), round_)
        assert round_.drawn.startswith("data:image/jpeg") and round_.drawn_on == count
    plain = Round("Where?", (shapes,), "there", "stop")
    draw_answer_boxes(SessionState([plain]), plain)
    assert plain.drawn is None


def test_the_engine_is_loaded_once():
    made = []

    class Engine:
        started = 0

        def start(self):
            self.started += 1

        def close(self):
            made.append("closed")

    host = EngineHost(lambda _adapter: made.append(Engine()) or made[-1])
    host.close()
    assert host.engine is host.engine and made[0].started == 1
    host.close()
    assert made[1:] == ["closed"]


def test_adapters_have_engines_of_their_own(tiny):
    """Loaded when they are chosen; a name that the command line doesn't have is an error."""
    texts, loaded = {"": "plain", "charts": "adapted"}, []

    def load(adapter):
        loaded.append(adapter)
        return FakeEngineThread(tiny, tiny.tokenizer, text=texts[adapter])

    host = EngineHost(load, "tiny", ("charts",))
    state, handlers = SessionState(), Handlers(host)
    assert "tiny</span>" in handlers.strip("en", state) and loaded == [""]

    async def choose_and_ask():
        strip = await handlers.choose_adapter("charts", "en", state)
        await handlers.send({"text": "hello", "files": []}, None, 8, "en", state)
        async for _ in handlers.answer("en", *astuple(OPTIONS), state):
            pass
        return strip

    assert "tiny + charts" in asyncio.run(choose_and_ask()) and loaded == ["", "charts"]
    assert state.rounds[0].answer == "adapted"
    with pytest.raises(ValueError, match="no adapter"):
        host.engine_of("other")


def test_a_question_is_taken_once_and_answered_once(tiny):
    """Its box is emptied by an event without further updates; what was refused is not answered."""
    host, state = fake(tiny), SessionState()
    handlers = Handlers(host)

    async def answer():
        return [update async for update in handlers.answer("en", *astuple(OPTIONS), state)]

    async def talk():
        shown, box, clip = await handlers.send({"text": " hello ", "files": []}, None, 8, "en", state)
        assert (len(shown), box, clip, state.busy) == (1, None, None, False)
        assert len(await answer()) > 2 and state.rounds[0].ending == "stop"
        assert len(await answer()) == 1  # there is no question: the page's stays as it is
        await handlers.send({"text": "cleared", "files": []}, None, 8, "en", state)
        handlers.clear(state)
        await answer()

    asyncio.run(talk())
    assert len(host.engine.asked) == 1 and not state.rounds
