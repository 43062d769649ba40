"""`paddle-internvl bench serve` as a user calls it, on a running server; wrong calls."""

import json

import pytest

from paddle_internvl.bench.server_process import served
from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT

CHECKPOINT = str(ROOT / "demo/checkpoints/internvl-tiny")
SHORT = ["--rate", "20", "--max-tokens", "4", "--ignore-eos", "--warm-up", "0"]


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_load_on_a_server_process(tmp_path, capsys):
    file = tmp_path / "run.json"
    with served(CHECKPOINT, ["--max-batch-size", "2"]) as url:
        words = ["bench", "serve", "--url", url, *SHORT, "--mix", "text=1,picture=1,video=1", "--requests", "9"]
        assert main([*words, "--json", str(file), "--plot", str(tmp_path / "run.svg")]) == 0
        assert "9 of 9 requests answered" in (tmp_path / "run.svg").read_text()
        figures, written = last_line(capsys), json.loads(file.read_text())
        assert figures["answered"] == figures["requests"] == 9 and figures["errors"] == {}
        assert written.items() >= figures.items() and len(written["outcomes"]) == 9
        assert {outcome["tokens"] for outcome in written["outcomes"]} == {4}
        assert sum(kind["requests"] for kind in figures["by_kind"].values()) == 9
        of_media = [o["prompt_tokens"] for o in written["outcomes"] if o["kind"] != "text"]
        assert min(of_media) > 100  # pictures became visual tokens
        assert main(["bench", "serve", "--url", url, *SHORT, "--requests", "3", "--model", "other"]) == 1
        assert last_line(capsys)["errors"] == {"404": 3}
    assert main(["bench", "serve", "--url", url, *SHORT]) == 2
    assert "no server answers" in capsys.readouterr().err


def test_a_server_that_fails_to_start(tmp_path, capsys):
    assert main(["bench", "serve", str(tmp_path), *SHORT]) == 2
    assert "the server ended before it was ready: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either CKPT or --url"),
        (["x", "--url", "y"], "give either CKPT or --url"),
        (["--url", "y", "--serve-flags", "--tp 2"], "--serve-flags are of a server of CKPT"),
        (["x", "--mix", "sound=1"], "mix: unknown kind 'sound'"),
        (["x", "--rate", "0"], "rate=0.0 is not above 0"),
        (["x", "--rate", "0.001", "--duration", "1"], "no request arrives within 1.0 seconds"),
        (["x", "--requests", "5", "--duration", "1"], "either a number of requests or a duration"),
    ],
)
def test_wrong_calls(words, message, capsys):
    assert main(["bench", "serve", *words]) == 2 and message in capsys.readouterr().err
