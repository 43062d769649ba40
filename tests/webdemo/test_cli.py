"""`paddle-internvl demo`: flags, errors, and a help without heavy imports."""

import socket
import subprocess
import sys

import pytest

from paddle_internvl.cli.main import build_parser, main
from tests.random_checkpoints import ROOT


def test_defaults():
    arguments = build_parser().parse_args(["demo"])
    assert (arguments.checkpoint, arguments.server_name, arguments.server_port) == (None, "127.0.0.1", 7860)


def test_help_imports_nothing_heavy():
    code = """
import sys
from paddle_internvl.cli.main import build_parser
build_parser().format_help()
print([name for name in ("gradio", "paddle", "numpy", "PIL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "error: the demo needs Gradio; pip install 'paddle_internvl[demo]'\n"


@pytest.mark.parametrize(
    "flags, message", [(["--server-port", "70000"], "server_port"), (["--max-batch-size", "0"], "batch")]
)
def test_invalid_options(flags, message, capsys):
    assert main(["demo", *flags]) == 2
    assert message in capsys.readouterr().err


def test_port_in_use_is_an_error_before_the_model_is_loaded(monkeypatch, capsys):
    pytest.importorskip("gradio")
    monkeypatch.setattr("paddle_internvl.serve.server.load_engine", lambda *_: pytest.fail("it loads the model first"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--server-port", str(port)]) == 2
    output = capsys.readouterr().err
    assert f"127.0.0.1:{port} can't be listened on" in output and "--server-port" in output and output.count("\n") == 1
