"""Subcommands chat, info and doctor: answers, JSON, exit codes, errors of one line."""

import io
import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from paddle_internvl.cli.main import main
from paddle_internvl.engine.response import Response
from tests.random_checkpoints import TINY


@pytest.fixture
def checkpoint(hf_folders):
    return str(hf_folders["dynamic_gqa"])


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (112, 56), "red").save(file)
    return str(file)


@pytest.fixture
def clip(tmp_path):
    file = tmp_path / "clip.gif"
    frames = [Image.new("RGB", (56, 56), (20 * k, 0, 0)) for k in range(8)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=100)
    return str(file)


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_imports_nothing_heavy():
    code = "import sys; from paddle_internvl.cli.main import build_parser; print(build_parser().format_help()); "
    shown = python(code + "print([name for name in ('paddle', 'paddlenlp', 'numpy', 'PIL') if name in sys.modules])")
    assert all(name in shown for name in ("chat", "info", "doctor")) and shown.splitlines()[-1] == "[]"


def test_chat_json(checkpoint, picture, clip, capsys):
    arguments = ["chat", checkpoint, "--question", "What?", "--question", "And?", "--max-new-tokens", "4", "--json"]
    arguments += ["--system", ""]
    assert main([*arguments, "--image", picture, "--image", picture]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["pictures"] == [{"tiles": 3, "tokens": 12}] * 2
    assert "user\nImage-1: <image>\nImage-2: <image>\nWhat?<|im_end|>" in document["prompt"]
    assert "user\nAnd?<|im_end|>" in document["prompt"]
    assert main([*arguments, "--video", clip, "--frames", "4"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(document["pictures"]) == 4 and "user\nFrame1: <image>\nFrame2: <image>\n" in document["prompt"]


def test_boxes_are_drawn(checkpoint, picture, tmp_path, capsys, monkeypatch):
    def answered(*texts):
        pieces = [Response(text, 1, 1, None) for text in texts]
        monkeypatch.setattr("paddle_internvl.chat.messages.stream_responses", lambda *_, **__: iter(pieces))

    target = tmp_path / "out.png"
    arguments = ["chat", checkpoint, "--image", picture, "--question", "Where?", "--draw", str(target)]
    answered("a thing[[0, 0, ", "500, 1000]]")
    assert main(arguments) == 0 and Image.open(target).size == (112, 56)
    assert Image.open(target).getpixel((56, 30)) != Image.open(picture).getpixel((56, 30))
    answered("nowhere")
    assert main(arguments) == 2 and "the answer holds no box to draw: 'nowhere'" in capsys.readouterr().err


def test_streamed_and_json_answers_are_equal(checkpoint, picture, capsys):
    arguments = [
        "chat",
        checkpoint,
        "--image",
        picture,
        "--question",
        "What?",
        "--max-new-tokens",
        "9",
        "--max-num",
        "1",
    ]
    main(arguments)
    streamed = capsys.readouterr().out
    main([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["answer"] == streamed.removesuffix("\n") and document["pictures"][0]["tiles"] == 1


def test_timing_adds_up(checkpoint, picture, capsys):
    arguments = ["chat", checkpoint, "--image", picture, "--question", "What?", "--max-new-tokens", "2", "--timing"]
    assert main(arguments) == 0
    assert "first token after " in capsys.readouterr().err.splitlines()[-1]
    assert main([*arguments, "--json"]) == 0
    timing = json.loads(capsys.readouterr().out)["timing"]
    assert [*timing["parts"]] == ["start", "pictures", "imports", "load", "prompt", "vision", "other"]
    assert sum(timing["parts"].values()) == pytest.approx(timing["first_token"], abs=0.01)
    assert min(timing["parts"].values()) >= 0 and timing["parts"]["vision"] > 0 and timing["parts"]["load"] > 0


def test_conversation(checkpoint, picture, capsys, monkeypatch):
    lines = [
        "Hello",
        f"/image {picture}",
        "What?",
        "/image nowhere.png",
        "/dance",
        "",
        "/reset",
        "Hello",
        "/quit",
        "never",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main(["chat", checkpoint, "--max-new-tokens", "4"]) == 0
    captured = capsys.readouterr()
    answers = captured.out.splitlines()
    assert len(answers) == 3 and answers[0] == answers[2]  # the reset forgot the picture
    assert "no such picture: nowhere.png" in captured.err and "/dance is no command" in captured.err


def test_answers_match_a_schema_or_a_choice(checkpoint, tmp_path, capsys):
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"]}')
    command = ["chat", checkpoint, "--question", "Hi", "--json"]
    assert main([*command, "--choice", "one", "two"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] in ("one", "two")
    assert main([*command, "--schema", str(schema), "--max-new-tokens", "3"]) == 1  # cut: it can't be mistaken for JSON
    captured = capsys.readouterr()
    assert (
        json.loads(captured.out)["finish_reason"] == "length" and "does not match; raise --max-new-tok" in captured.err
    )


def test_settings_reach_the_model(checkpoint, capsys):
    def answer(*more):
        assert main(["chat", checkpoint, "--question", "Hi", "--max-new-tokens", "9", *more]) == 0
        return capsys.readouterr().out

    greedy = answer()
    assert answer("--system", "Other.") != greedy
    assert answer("--temperature", "5", "--seed", "1") == answer("--temperature", "5", "--seed", "1") != greedy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chat", "CKPT", "--image", "none.png", "--question", "a"], "no such picture: none.png"),
        (["chat", "CKPT", "--video", "none.mp4", "--question", "a"], "no such video: none.mp4"),
        (["chat", "CKPT", "--json"], "--json needs --question"),
        (["chat", "CKPT", "--timing"], "--timing needs --question"),
        (["info", "/nowhere"], "/nowhere does not exist; give a folder, or a hub id"),
        (["info", str(TINY / "dynamic_gqa.json"), "--size", "big"], "--size big is no size"),
    ],
)
def test_errors_are_one_line_and_exit_2(checkpoint, arguments, message, capsys):
    assert main([checkpoint if word == "CKPT" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_info(checkpoint, picture, models, capsys):
    assert main(["info", checkpoint, "--json", "--size", "1000x480", "--max-num", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    counted = sum(parameter.size for parameter in models["dynamic_gqa"].parameters())
    assert document["parameters"]["total"] == counted and document["weights bytes"]["bfloat16"] == 2 * counted
    assert document["tokens per tile"] == 4 and document["tile side"] == 56
    assert document["picture"] == {"size": [1000, 480], "grid (columns x rows)": [2, 1], "thumbnail": True,
                                   "tiles": 3, "visual tokens": 12}  # fmt: skip
    assert main(["info", str(TINY / "biased_v1.json"), "--image", picture]) == 0
    shown = capsys.readouterr().out
    assert "112 x 56 px" in shown and "total" in shown and "KiB" in shown and " \n" not in shown


def test_info_loads_no_weights(checkpoint):
    call = f"main(['info', {checkpoint!r}, '--json'])"
    shown = python(f"import sys; from paddle_internvl.cli.main import main; {call}; print('paddle' in sys.modules)")
    assert shown.splitlines()[-1] == "False"


def test_kv_cache_figure_by_hand():
    from paddle_internvl.cli.info import describe

    config = json.loads((TINY / "dynamic_gqa.json").read_text())
    assert describe(config)["KV cache bytes per token"]["float32"] == 3 * 2 * 2 * 16 * 4  # layers, k and v, K, E, bytes


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["Paddle"]["state"] == found["registration"]["state"] == "ok"
    assert {"Python", "CUDA", "CPU threads", "decord"} <= found.keys()
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "Paddle" in shown and "sm80" not in shown  # there is no card here; its own line has the advice


def test_doctor_report(capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@mirror.corp")
    assert main(["doctor", "--report"]) == 0
    shown = capsys.readouterr().out
    rows = dict(re.findall(r"^\| ([^|]+) \| (.*?) \|", shown, re.M))
    assert rows["paddle_internvl"] and rows["system"] == platform.platform() and "cores for this process" in shown
    assert f"numpy {metadata.version('numpy')}" in shown and " GiB free" in rows["memory"]
    assert "HF_ENDPOINT is set" in shown and "secret" not in shown and "mirror" not in shown
    assert str(Path.home()) not in shown.replace("/root/.pyenv", "")


def test_doctor_has_advice_for_problems(capsys, monkeypatch):
    def version(name: str) -> str:
        if name == "sentencepiece":
            raise metadata.PackageNotFoundError
        return "3.3.1" if name == "paddlepaddle-gpu" else installed(name)

    installed = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor", "--json"]) == 1
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["sentencepiece"]["advice"] == "pip install sentencepiece"
    assert "both builds" in found["Paddle"]["detail"]
