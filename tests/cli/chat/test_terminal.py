"""The conversation on a terminal, by keys of prompt_toolkit's pipe input, with a model that repeats the question."""

import io
import json
import subprocess
import sys

import pytest
from PIL import Image
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from paddle_internvl.cli.chat.editor import HISTORY_VARIABLE, CommandCompleter, Editor
from paddle_internvl.cli.chat.session import Session, media_of, text_of
from paddle_internvl.cli.chat.terminal import Terminal
from paddle_internvl.engine.response import Response
from tests.random_checkpoints import ROOT

ENTER, INTERRUPT, END, ALT_ENTER = "\r", "\x03", "\x04", "\x1b\r"
PASTE = "\x1b[200~{}\x1b[201~"


class Parrot:
    """A model that repeats the question word by word; `interrupt` is pressed after so many words."""

    name, decodes_clips, error = "parrot", True, None

    def __init__(self):
        self.requests, self.interrupt = [], None

    def stream(self, messages, settings, options):
        self.requests.append((messages, dict(settings), dict(options)))
        words = text_of(messages[-1]).split()
        for i, word in enumerate(words):
            if i == self.interrupt:
                raise KeyboardInterrupt
            yield Response(f"{word} ", i + 1, 0, None)
        yield Response("", len(words), 9, "stop")

    def status(self):
        return ""

    def cost(self, medium, options):
        return "1 tile · 49 tokens"

    def count(self, messages, options):
        return f"{len(messages)} messages"


@pytest.fixture
def parrot():
    return Parrot()


@pytest.fixture
def talk(parrot, monkeypatch, tmp_path):
    """Types keys and ends with Ctrl-D; returns the session, stdout and stderr."""

    def run(*keys: str, session: Session | None = None):
        session = session or Session({"temperature": 0.0, "max_new_tokens": 9}, 8, system=None, max_num=None)
        session.model = parrot
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        with create_pipe_input() as pipe:
            pipe.send_text("".join(keys) + END)
            editor = Editor(parrot.status, None, True, output=DummyOutput(), input=pipe)
            assert Terminal(session, False, editor=editor).run() == 0
        return session, out.getvalue(), err.getvalue()

    monkeypatch.setenv(HISTORY_VARIABLE, str(tmp_path / "history"))
    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "my picture's.png"
    Image.new("RGB", (64, 48), "red").save(file)
    return file


def questions(session) -> list[str]:
    return [text_of(message) for message in session.messages if message["role"] == "user"]


def test_the_prompt_comes_before_heavy_imports():
    """What `chat --url` imports until its first prompt: no rich, no HTTP client, no Paddle."""
    code = """
import sys
from paddle_internvl.cli.main import build_parser
from paddle_internvl.cli.chat.editor import Editor
from paddle_internvl.cli.chat.remote import RemoteModel
from paddle_internvl.cli.chat.session import Session
from paddle_internvl.cli.chat.terminal import Terminal
build_parser()
session = Session({}, 8, system=None, max_num=None)
session.model = RemoteModel("http://127.0.0.1:9")
Terminal(session, False)._greet()
print([name for name in ("rich", "httpx", "numpy", "PIL", "paddle") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr.splitlines()[-1].startswith("127.0.0.1:9: /help")


def test_several_lines_are_one_message(talk):
    session, out, _ = talk(
        PASTE.format("one\ntwo"), ENTER, "three\\", ENTER, "four", ENTER, "five", ALT_ENTER, "six", ENTER,
        '"""', ENTER, "seven", ENTER, 'eight"""', ENTER,
    )  # fmt: skip
    assert questions(session) == ["one\ntwo", "three\nfour", "five\nsix", "seven\neight"]
    assert "one two" in out


def test_bare_words_and_misspelt_commands(talk, parrot):
    session, _, err = talk("hello", ENTER, "clear", ENTER, "/sett", ENTER, "/?", ENTER, "again", ENTER)
    assert questions(session) == ["again"] and "/sett is no command; did you mean /set?" in err and "Ctrl-R" in err
    talk("exit", ENTER, "never", ENTER)
    talk("/quit", ENTER, "never", ENTER)
    talk(INTERRUPT, INTERRUPT, "never", ENTER)
    assert [text_of(messages[-1]) for messages, _, _ in parrot.requests] == ["hello", "again"]


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(talk, parrot):
    talk("one two", ENTER)
    parrot.interrupt = 1
    session, _, err = talk("one two three", ENTER, "/retry", ENTER, "/undo", ENTER, "four five", ENTER)
    assert questions(session) == ["four five"] and text_of(session.messages[-1]) == "four "
    assert "the part above stays" in err and "removed: one two three" in err
    parrot.interrupt = 0
    session, _, err = talk("six", ENTER, session=session)
    assert questions(session) == ["four five"] and "not in the conversation" in err


def test_an_unexpected_error_ends_the_question_alone(talk, parrot, monkeypatch):
    monkeypatch.setattr(parrot, "stream", lambda *_: (_ for _ in ()).throw(IndexError("piece id is out of range")))
    session, _, err = talk("hello", ENTER)
    assert session.messages == [] and "error: IndexError: piece id is out of range\n" in err


def test_pictures_by_command_and_dragged(talk, picture):
    dragged = f"'{picture.parent}/my picture'\\''s.png' "  # as terminals quote a dropped file
    session, _, err = talk(f"/image {picture}", ENTER, dragged, ENTER, "/image", ENTER, "What?", ENTER)
    assert [medium.source for medium in media_of(session.messages[0])] == [str(picture)] * 2
    assert err.count(f"{picture.name} · 64x48 · 1 tile · 49 tokens") == 2 and "name a file: /image FILE" in err


def test_settings_and_saved_conversations(talk, parrot, picture, tmp_path):
    saved = tmp_path / "saved.json"
    session, _, err = talk(
        "/set temperature 0.5", ENTER, "/set heat 1", ENTER, "/set top_p 3", ENTER, "/system Be brief.", ENTER,
        f"/image {picture}", ENTER, "What?", ENTER, f"/save {saved}", ENTER, "/set", ENTER, "/tokens", ENTER,
    )  # fmt: skip
    _, settings, options = parrot.requests[0]
    assert (settings["temperature"], settings["do_sample"], options["system"]) == (0.5, True, "Be brief.")
    assert "'heat' is no setting" in err and "top_p=3.0 is outside [0, 1]" in err and "temperature=0.5" in err
    assert "3 messages" in err
    part = json.loads(saved.read_text())["messages"][0]["content"][0]
    assert part == {"type": "image_url", "image_url": {"url": str(picture)}}  # OpenAI's form
    loaded, _, _ = talk(f"/load {saved}", ENTER, "/retry", ENTER)
    assert questions(loaded) == ["What?"] and media_of(loaded.messages[0])[0].images[0].size == (64, 48)
    assert loaded.options["system"] == "Be brief."


def test_the_history_is_a_file_of_its_owner(talk, tmp_path):
    talk("first question", ENTER)
    session, _, _ = talk("\x1b[A", ENTER)  # Up
    assert questions(session) == ["first question"] and (tmp_path / "history").stat().st_mode & 0o777 == 0o600


def test_tab_completes_commands_files_and_settings(picture):
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    def completions(text):
        return [c.text for c in CommandCompleter().get_completions(Document(text, len(text)), CompleteEvent())]

    assert completions("/vi") == ["video "]
    assert completions(f"/image {picture.parent}/my") == [" picture's.png"]
    assert completions("/set rep") == ["repetition_penalty "] and completions("what is /vi") == []
