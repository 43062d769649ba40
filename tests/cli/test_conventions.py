"""Conventions of all subcommands, in tables over them: examples that parse, errors of one line, JSON alone on stdout,
colours only on a terminal, the exit codes of the help."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest

from convert.cli import _parser as convert_parser
from convert.cli import main as convert_main
from convert.command_line import EXIT_INTERRUPTED, EXIT_OK, EXIT_PIPE, EXIT_USAGE
from convert.streaming import convert
from paddle_internvl import progress
from paddle_internvl.cli import aliases, conventions
from paddle_internvl.cli.main import build_parser, main
from paddle_internvl.serve.settings import from_arguments
from tests.random_checkpoints import ROOT, TINY

CHECKPOINT = str(ROOT / "demo/checkpoints/internvl-tiny")
CONFIG = str(TINY / "dynamic_gqa.json")
PICTURE = str(ROOT / "demo/assets/shapes.png")
PROGRAM = re.compile(r"paddle-internvl|python -m convert")
ANSI = re.compile(r"\x1b\[")
OURS, CONVERT = (sys.executable, "-m", "paddle_internvl.cli.main"), (sys.executable, "-m", "convert")
LEAVES = {leaf.prog: leaf for parser in (build_parser(), convert_parser()) for leaf in conventions.leaves(parser)}


def run(*words: str) -> subprocess.CompletedProcess:
    """Run a subcommand in a process of its own."""
    return subprocess.run([*OURS, *words], capture_output=True, text=True, cwd=ROOT, timeout=300)


def on_a_terminal(code: str, **environment) -> str:
    """Output of a Python program on a terminal."""
    ours, theirs = pty.openpty()
    kept = {**os.environ, "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=kept
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        process.wait()
    os.close(ours)
    return shown.decode()


def examples(parser) -> list[list[str]]:
    """The command lines of a help, from the program's name on."""
    lines = [line for line in (parser.epilog or "").splitlines() if line.startswith("  ")]
    plain = [line.replace("$(which paddle-internvl)", "paddle-internvl") for line in lines]
    plain = [re.sub(r"\$\(.*?\)", "FOLDER", line.split(" > ")[0]) for line in plain]
    return [shlex.split(line[line.index(PROGRAM.search(line)[0]) :], comments=True) for line in plain]


@pytest.mark.parametrize("name", LEAVES)
def test_help_has_examples_that_parse(name):
    lines = examples(LEAVES[name])
    assert any(words[: len(name.split())] == name.split() for words in lines), f"{name} --help has no example"
    for words in lines:
        ours = words[0] == "paddle-internvl"
        (build_parser() if ours else convert_parser()).parse_args(words[1 if ours else 3 :])


@pytest.mark.parametrize("name", LEAVES)
def test_flags_that_all_have(name):
    assert {"--quiet", "--log-level"} <= set(LEAVES[name].options)


@pytest.mark.parametrize("name", ["chat", "serve", "batch", "download", "info", "estimate", "verify", "doctor", "demo"])
def test_help_names_the_exit_codes(name):
    shown = build_parser().subcommands[name].format_help()
    assert "exit codes: 0 done, " in shown and "2 the input or the call is wrong, 130 interrupted" in shown
    assert ("1 " in shown.split("exit codes")[1]) == (name in ("batch", "estimate", "verify", "doctor"))


def test_flags_stand_before_or_after_the_command():
    parse = build_parser().parse_args
    for words in (["--log-level", "debug", "--quiet", "info", "X"], ["info", "X", "--quiet", "--log-level", "debug"]):
        assert (parse(words).quiet, parse(words).log_level) == (True, "debug")
    assert parse(["--log-level", "error", "serve", "X"]).log_level == "error"
    assert parse(["--log-level", "error", "serve", "X", "--log-level", "info"]).log_level == "info"
    assert not hasattr(parse(["serve", "X"]), "log_level")  # then the settings file may say it


WRONG = {  # words -> the one line of the error
    ("chat", "/nowhere", "--question", "a"): "/nowhere does not exist",
    ("chat", CHECKPOINT, "--image", "none.png", "--question", "a"): "no such picture: none.png",
    ("chat", CHECKPOINT, "--image", "BAD.png", "--question", "a"): "BAD.png",
    ("chat", CHECKPOINT, "--draw", "out.png"): "--draw needs --question",
    ("chat", CHECKPOINT, "--draw", "/nowhere/x.png"): "argument --draw: /nowhere/x.png can't be written: there is no",
    ("chat", CHECKPOINT, "--draw", "x.xyz"): "argument --draw: x.xyz has the ending of no picture",
    ("chat", CHECKPOINT, "--seed", "-1"): "argument --seed: -1 is below 0",
    ("chat", CHECKPOINT, "--temperature", "nan"): "argument --temperature: nan is below 0",
    ("chat", CHECKPOINT, "--frames", "many"): "argument --frames: invalid integer value: 'many'",
    ("chat", CHECKPOINT, "--top-p", "3"): "top_p=3.0 is outside [0, 1]",
    ("chat", CHECKPOINT, "--image", str(TINY), "--question", "a"): "is a folder, not a picture; name a file in it",
    ("chat", CHECKPOINT, "--video", PICTURE, "--question", "a"): "is a picture, not a clip",
    ("chat", CHECKPOINT, "--imgae", "a.png"): "did you mean --image?; see paddle-internvl chat --help",
    ("chat", CHECKPOINT, "--quantization", "int8"): "argument --quantization: invalid choice: 'int8'",
    ("chta",): "did you mean chat?",
    ("chat",): "the following arguments are required: CKPT; see paddle-internvl chat --help",
    ("info", "/nowhere"): "/nowhere does not exist",
    ("info", "BAD.json"): "BAD.json is not valid JSON",
    ("info", CONFIG, "--image", "BAD.png"): "BAD.png",
    ("info", CONFIG, "--size", "x"): "--size x is no size",
    ("info", CONFIG, "--image", PICTURE, "--plot", "/nowhere/x.png"): "argument --plot: /nowhere/x.png can't be",
    ("info", CONFIG, "--image", PICTURE, "--plot", "x.xyz"): "argument --plot: x.xyz has the ending of no picture",
    ("dataset", "none.json", "--model", CHECKPOINT): "none.json does not exist; give the meta JSON",
    ("dataset", "BAD.json", "--model", CHECKPOINT): "BAD.json is not valid JSON",
    ("train", "none.json"): "none.json does not exist; give the JSON or YAML file",
    ("train", "BAD.yaml"): "BAD.yaml is not valid YAML",
    ("eval", "score", "MMStra", "--data", PICTURE, "--answers", "a.json"): "did you mean MMStar",
    ("eval", "score", "MMStar", "--data", "/nowhere", "--answers", "a.json"): "/nowhere: no such file",
    ("eval", "run", CHECKPOINT, "--data", "MMStar=/nowhere"): "/nowhere",
    ("eval", "run", "/nowhere", "--data", "MMStar=/nowhere"): "/nowhere does not exist",
    ("curate", "filter", "/nowhere", "OUT"): "/nowhere",
    ("curate", "review", "/nowhere"): "/nowhere",
    ("curate", "pairs", "/nowhere", "OUT"): "/nowhere",
    ("curate", "sample", "/nowhere", "OUT", CHECKPOINT, "--prompt-version", "en"): "/nowhere",
    ("merge-lora", "/nowhere", "OUT"): "/nowhere does not exist",
    ("estimate", "/nowhere"): "/nowhere does not exist",
    ("estimate", "BAD.json"): "BAD.json is not valid JSON",
    ("estimate", CONFIG, "--gpus", "0"): "--gpus and --memory must be above 0",
    ("verify", "/nowhere", CHECKPOINT): "/nowhere does not exist",
    ("verify", CHECKPOINT, CHECKPOINT, "--image", "BAD.png"): "BAD.png",
    ("serve", "/nowhere", "--server-port", "0"): "/nowhere does not exist",
    ("serve", CHECKPOINT, "--config", "BAD.yaml"): "BAD.yaml",
    ("serve", CHECKPOINT, "--server-port", "70000"): "server_port=70000 is outside",
    ("serve", CHECKPOINT, "--log-level", "loud"): "argument --log-level: invalid choice: 'loud'",
    ("serve", CHECKPOINT, "--chat-template", "llama3"): "chat template 'llama3' is not the checkpoint's, 'internvl2_5'",
    ("demo", CHECKPOINT, "--server-port", "70000"): "server_port=70000 is outside",
    ("batch", "/nowhere", "OUT", CHECKPOINT, "--workers", "0"): "/nowhere",
    ("download", "/nowhere"): "/nowhere does not exist",
    ("download", "tiny"): "give a folder, or a hub id: owner/name",
    ("download", "me/tiny", "--hub", "github"): "invalid choice: 'github'",
    ("completion", "tcsh"): "invalid choice: 'tcsh'",
    ("dance",): "invalid choice: 'dance'",
    ("serve", CHECKPOINT, "--prot", "1"): "see paddle-internvl serve --help",
    ("batch", "IN", "OUT", CHECKPOINT, "--generation", '{"heat": 1}'): "generation setting 'heat' is not known",
    ("batch", "IN", "OUT", CHECKPOINT, "--workers", "-1"): "argument --workers: -1 is below 0",
    ("bench", "serve"): "give either CKPT or --url",
}
WRONG_CONVERT = {
    ("hf2pd", "--src", "/nowhere", "--dst", "OUT"): "/nowhere does not exist",
    ("hf2pd", "--src", "OpenGVLab/x", "--dst", "OUT"): "paddle-internvl download OpenGVLab/x",
    ("pd2hf", "--src", CHECKPOINT, "--dst", "OUT"): "hf2pd is the other direction",
    ("inspect", "/nowhere"): "/nowhere does not exist",
    ("hf2pd", "--dst", "x"): "the following arguments are required: --src; see python -m convert hf2pd --help",
}


@pytest.fixture
def bad(tmp_path):
    """BAD.* as files that are broken, OUT as one that is not there."""
    for name in ("BAD.json", "BAD.png", "BAD.yaml"):
        (tmp_path / name).write_text("{no: [")
    return lambda words: [str(tmp_path / word) if word.startswith("BAD.") or word == "OUT" else word for word in words]


def test_errors_are_one_line_and_exit_2(bad, capfd, monkeypatch):
    for program, table in ((main, WRONG), (convert_main, WRONG_CONVERT)):
        for words, message in table.items():
            try:
                code = program(bad(words))
            except SystemExit as end:  # argparse's way
                code = end.code
            out, error = capfd.readouterr()
            assert code == EXIT_USAGE and out == "", words
            assert error.startswith("error: ") and error.count("\n") == 1 and message in error, (words, error)
            assert not ANSI.search(error)


def test_every_subcommand_has_a_row():
    rows = {words[0] for words in WRONG}
    assert set(build_parser().subcommands) - {"build-kernels", "doctor"} <= rows
    assert set(convert_parser().subcommands) == {words[0] for words in WRONG_CONVERT}


def test_debug_shows_the_traceback(capsys):
    assert main(["info", "/nowhere", "--log-level", "debug"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback") and error.splitlines()[-1].startswith("error: /nowhere does not exist")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A converted folder, and a file of questions."""
    folder = tmp_path_factory.mktemp("conventions")
    convert(ROOT / "demo/checkpoints/internvl-tiny", folder / "pd", to_paddle=True)
    (folder / "in.jsonl").write_text('{"prompt": "hello", "generation": {"max_new_tokens": 2}}\n')
    return folder


JSON = [  # words, exit code
    (["info", CONFIG, "--size", "640x480", "--json"], 0),
    (["estimate", CONFIG, "--json"], 0),
    (["estimate", str(ROOT / "configs/internvl2_5-78b.json"), "--memory", "8", "--json"], 1),
    (["verify", CHECKPOINT, "PD", "--max-new-tokens", "2", "--json"], 0),
    (["doctor", "--json"], None),  # a problem of this machine is none of the test's
    (["batch", "IN", "OUT", CHECKPOINT, "--workers", "0", "--json"], 0),
    (["download", CHECKPOINT, "--json"], 0),
    (["convert", "inspect", CHECKPOINT, "--json"], 0),
    (["convert", "hf2pd", "--src", CHECKPOINT, "--dst", "DST", "--json"], 0),
]


@pytest.mark.parametrize(("words", "code"), JSON)
def test_json_is_alone_on_stdout(words, code, folders, tmp_path, capfd):
    places = {"PD": folders / "pd", "IN": folders / "in.jsonl", "OUT": tmp_path / "out", "DST": tmp_path / "dst"}
    words = [str(places.get(word, word)) for word in words]
    returned = convert_main(words[1:]) if words[0] == "convert" else main(words)
    out, error = capfd.readouterr()
    assert returned == code or code is None, error
    assert isinstance(json.loads(out), (dict, list)) and out.count("\n") == 1
    assert error == "" and not ANSI.search(out)


def test_a_process_writes_nothing_else_either():
    done = run("chat", CHECKPOINT, "--question", "hello", "--image", PICTURE, "--max-new-tokens", "2", "--json")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["pictures"]


def test_logs_go_to_stderr(capfd):
    words = ["--question", "hello", "--max-new-tokens", "2", "--json", "--log-level", "info"]
    assert main(["chat", CHECKPOINT, *words]) == 0
    out, error = capfd.readouterr()
    assert "float32 on cpu" in error and not ANSI.search(error)
    assert json.loads(out)["answer"] and out.count("\n") == 1


def test_colours_only_on_a_terminal_and_not_with_no_color(capfd):
    code = "from paddle_internvl.cli import conventions; conventions.console().print('[bold red]found 3[/]')"
    assert ANSI.search(on_a_terminal(code, NO_COLOR="")) and not ANSI.search(on_a_terminal(code, NO_COLOR="1"))
    main(["doctor"])
    assert not ANSI.search(capfd.readouterr().out)


def test_piped_tables_keep_their_lines_whole(capfd):
    assert main(["info", CONFIG]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) > 80 and all(line[:3].strip() for line in lines)  # the rest of a row begins with blanks


def test_bars_only_on_a_terminal(monkeypatch):
    assert not progress.shown()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert progress.shown()
    progress.be_quiet()
    assert not progress.shown()
    progress.be_quiet(False)


def test_quiet_draws_no_bars(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shown = []
    monkeypatch.setattr("paddle_internvl.cli.info.describe", lambda _config: shown.append(progress.shown()) or {})
    assert main(["info", CONFIG, "--json"]) == main(["info", CONFIG, "--json", "--quiet"]) == 0
    assert shown == [True, False]
    progress.be_quiet(False)


def test_the_hub_flag_is_in_the_environment_of_children(monkeypatch, capsys):
    monkeypatch.setenv("PADDLE_INTERNVL_HUB", "huggingface")
    assert main(["download", CHECKPOINT, "--hub", "modelscope"]) == 0
    assert os.environ["PADDLE_INTERNVL_HUB"] == "modelscope" and capsys.readouterr().out == f"{CHECKPOINT}\n"


@pytest.mark.parametrize("program", [(*OURS, "completion", "bash"), (*CONVERT, "inspect", CHECKPOINT)])
def test_a_closed_pipe_is_no_error(program):
    command = f"{shlex.join(program)} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "" and done.stdout.count("\n") == 1 and done.returncode in (EXIT_OK, EXIT_PIPE)


def test_interrupted_is_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("paddle_internvl.cli.info.describe", interrupted)
    assert main(["info", CONFIG]) == EXIT_INTERRUPTED == 130 and capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr("convert.cli.Checkpoint", interrupted)
    assert convert_main(["inspect", CHECKPOINT]) == 130 and "interrupted" in capsys.readouterr().err


def test_completion_completes():
    script = run("completion", "bash").stdout
    asked = "COMP_WORDS=(paddle-internvl info --q) COMP_CWORD=2 COMP_LINE='paddle-internvl info --q'"
    code = f'{script}\n{asked}; _shtab_paddle_internvl; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "--quiet", done.stderr
    assert "#compdef paddle-internvl" in run("completion", "zsh").stdout
    assert (
        "complete -c paddle-internvl -n '_shtab_paddle_internvl_using info' -l quiet"
        in run("completion", "fish").stdout
    )


@pytest.mark.parametrize("name", ["chat X", "demo X", "serve X", "batch X Y Z", "eval run X --data Y"])
def test_aliases_are_the_option_itself(name):
    command, words = name.split(" X")[0], name.split()
    parser = LEAVES[f"paddle-internvl {command}"]
    taken = [(alias, option) for alias, option in aliases.ALIASES.items() if option in parser.options]
    assert taken
    for alias, option in taken:
        value = "ERROR" if option == "--log-level" else "1"
        theirs, ours = (build_parser().parse_args([*words, flag, value]) for flag in (alias, option))
        assert vars(theirs) == vars(ours), alias
        assert f"  {alias} " not in parser.format_help()


def test_flags_of_others_without_an_effect_or_with_another_name(capsys):
    parser = LEAVES["paddle-internvl serve"]
    parser.parse_args(["X", *aliases.IGNORED])
    notes = capsys.readouterr().err.splitlines()
    assert notes == [f"note: {flag} has no effect: {reason}" for flag, reason in aliases.IGNORED.items()]
    for flag, advice in aliases.REFUSED.items():
        with pytest.raises(SystemExit):
            parser.parse_args(["X", flag, "1"])
        assert f"error: {flag} is not taken: {advice}" in capsys.readouterr().err


def test_quantization_while_loading(capsys):
    from paddlenlp.transformers import AutoModel

    question = "How many objects are there?"
    words = ["--image", PICTURE, "--max-new-tokens", "8", "--json", "--question", question]
    assert main(["chat", CHECKPOINT, "--quantization", "wint4", *words, "--log-level", "INFO"]) == 0
    captured = capsys.readouterr()
    model = AutoModel.from_pretrained(CHECKPOINT, load_in_4bit=True)
    content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": question}]
    expected = model.chat_messages([{"role": "user", "content": content}], {"max_new_tokens": 8})
    assert json.loads(captured.out)["answer"] == expected.text and "weights quantized" in captured.err


def test_serve_takes_the_words_of_lmdeploy_and_vllm():
    for words, expected in (
        (
            "api_server CKPT --backend pytorch --chat-template internvl2_5 --server-port 1 --model-name m --tp 2",
            "CKPT --server-port 1 --served-model-name m --tp 2",
        ),
        (
            "CKPT --host 0.0.0.0 --port 1 --max-model-len 99 --tensor-parallel-size 2 --trust-remote-code",
            "CKPT --server-name 0.0.0.0 --server-port 1 --session-len 99 --tp 2",
        ),
    ):
        theirs, ours = (build_parser().parse_args(["serve", *line.split()]) for line in (words, expected))
        assert theirs.checkpoint == "CKPT" and from_arguments(theirs, {}) == from_arguments(ours, {})


def test_a_subcommand_imports_no_other():
    code = """
import sys
from paddle_internvl.cli.main import main
try:
    main(["info", "--help"])
finally:
    modules = {name.split(".")[2] for name in sys.modules if name.startswith("paddle_internvl.cli.")}
    print(modules & {"chat", "serve", "train", "eval", "curate", "bench"}, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == EXIT_OK and done.stderr == "set()\n"
