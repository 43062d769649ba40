"""The parser and the exit codes that every command line of the project has."""

import os
import subprocess
import sys

import pytest

from convert.command_line import EXIT_PIPE, Parser, add_common_flags, run
from tests.random_checkpoints import ROOT, TOKENIZER


@pytest.fixture
def parser():
    parser = Parser(prog="tool")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    first = commands.add_parser("convert", examples=["tool convert a b"], different="they differ")
    first.add_argument("--max-shard-size")
    first.add_argument("--bits", type=int, choices=(4, 8))
    commands.add_parser("inspect").add_argument("folder", nargs="?")
    add_common_flags(parser)
    return parser


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["convrt"], "argument COMMAND: invalid choice: 'convrt' (choose from 'convert', 'inspect'); "
                     "did you mean convert?"),
        (["convert", "--max-shrd-size", "1"], "unrecognized arguments: --max-shrd-size 1; "
                                              "did you mean --max-shard-size?"),
        (["inspect", "--max-shard-size=1"], "unrecognized arguments: --max-shard-size=1"),
        (["convert", "--bits", "5"], "argument --bits: invalid choice: 5 (choose from 4, 8)"),
        (["convert", "--quit"], "unrecognized arguments: --quit; did you mean --quiet?"),
        ([], "the following arguments are required: COMMAND"),
    ],
)  # fmt: skip
def test_errors_of_the_call_are_one_line(parser, capsys, words, error):
    with pytest.raises(SystemExit) as raised:
        parser.parse_args(words)
    name = f"tool {words[0]}" if words and words[0] in ("convert", "inspect") else "tool"
    assert raised.value.code == 2 and capsys.readouterr().err == f"error: {error}; see {name} --help\n"


def test_help_has_examples_and_exit_codes(parser):
    shown = parser.subcommands["convert"].format_help()
    assert "examples:\n  tool convert a b\n" in shown
    assert "exit codes: 0 done, 1 they differ, 2 the input or the call is wrong, 130 interrupted" in shown
    assert "1 " not in parser.subcommands["inspect"].format_help().partition("exit codes")[2].replace("130", "")


@pytest.mark.parametrize("words", [["--quiet", "inspect"], ["inspect", "--quiet"]])
def test_common_flags_stand_anywhere(parser, words):
    assert parser.parse_args(words).quiet and not hasattr(parser.parse_args(["inspect"]), "quiet")


def test_exit_codes(parser, capsys):
    arguments = parser.parse_args(["inspect"])

    def raises(error):
        def work():
            raise error

        return work

    assert run(lambda: 1, arguments, errors=(ValueError,)) == 1
    assert run(raises(ValueError("two\n  lines")), arguments, errors=(ValueError,)) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert run(raises(KeyboardInterrupt()), arguments, errors=(), interrupted="stopped") == 130
    assert capsys.readouterr().err == "stopped\n"
    with pytest.raises(KeyError):  # a fault of the program
        run(raises(KeyError("x")), arguments, errors=(ValueError,))
    debug = parser.parse_args(["inspect", "--log-level", "debug"])
    assert run(raises(ValueError("seen")), debug, errors=(ValueError,)) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)  # as `| head` does, but before the first line
    command = [sys.executable, "-m", "convert", "inspect", str(TOKENIZER)]
    ended = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert ended.returncode == EXIT_PIPE and ended.stderr == b""
