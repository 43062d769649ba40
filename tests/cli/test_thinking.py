"""`--thinking`: the answer on stdout, its thoughts on stderr or in the JSON document."""

import io
import json

import pytest

from paddle_internvl.cli.main import main
from paddle_internvl.engine.response import Response
from tests.random_checkpoints import ROOT

CHECKPOINT = str(ROOT / "demo/checkpoints/internvl-tiny")
LIMIT = ("--max-new-tokens", "6")
THOUGHTS = {"thinking": True, "keep_thoughts": True, "system": None}


@pytest.fixture
def requests(monkeypatch):
    """Answers with thoughts; the (messages, prompt options) of the requests."""
    calls = []

    def streamed(_model, _tokenizer, conversations, _config, **prompt_options):
        calls.append((conversations[0], prompt_options))
        pieces = [("", "\nso"), ("", " it is"), ("a ", None), ("circle", None)]
        return (Response(text, 1, 1, None, reasoning=reasoning) for text, reasoning in pieces)

    monkeypatch.setattr("paddle_internvl.chat.messages.stream_responses", streamed)
    return calls


def test_chat(requests, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\nAnd?\n"))
    assert main(["chat", CHECKPOINT, "--thinking", "--drop-thoughts"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "a circle\n" * 2 and captured.err.count("so it is\n") == 2
    messages, options = requests[1]
    assert options == {**THOUGHTS, "keep_thoughts": False, "max_num": None}
    assert messages[1] == {"role": "assistant", "content": "a circle", "reasoning_content": "\nso it is"}


def test_hidden_or_json(requests, capsys):
    arguments = ["chat", CHECKPOINT, "--thinking", "--question", "What?"]
    assert main([*arguments, "--hide-thoughts"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "a circle\n" and "so it is" not in captured.err
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["answer"], document["reasoning_content"]) == ("a circle", "\nso it is")
    assert "within <think> and </think> tags" in document["prompt"]


def test_batch(tmp_path, capsys):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    question = {"role": "user", "content": "Why?"}
    begun = {"role": "assistant", "content": "<think>\nHello", "prefix": True}
    rows = [[question, begun], [{"role": "system", "content": "Be brief."}, question]]
    source.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    assert main(["batch", str(source), str(target), CHECKPOINT, "--workers", "0", "--thinking", *LIMIT]) == 1
    answered, refused = map(json.loads, target.open())
    assert answered["text"] == "" and answered["reasoning_content"]
    assert "thinking takes the place of the system message" in refused["error"]
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["thinking"] is True
    assert main(["batch", str(source), str(target), CHECKPOINT, "--thinking", "--system", "Be brief."]) == 2
    assert "thinking takes the place of the system message" in capsys.readouterr().err
