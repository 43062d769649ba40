"""Print the shell completion script of this command, for the tab key.

examples:
  paddle-internvl completion bash > ~/.local/share/bash-completion/completions/paddle-internvl
  paddle-internvl completion zsh > ~/.zfunc/_paddle-internvl    # with fpath+=~/.zfunc before compinit in .zshrc
  paddle-internvl completion fish > ~/.config/fish/completions/paddle-internvl.fish
"""

from __future__ import annotations

import argparse

from convert.command_line import EXIT_OK
from paddle_internvl.cli import conventions

_FOLDERS = ("CKPT", "SRC", "DST")  # metavars of folders
_FILES = ("F", "IN", "OUT", "FILE", "YAML", "CKPT|CONFIG", "CONFIG|CKPT", "CONFIG", "CONFIG_OR_CKPT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(arguments: argparse.Namespace) -> int:
    import shtab

    from paddle_internvl.cli.main import build_parser

    parser = build_parser()
    for leaf in conventions.leaves(parser):
        for action in leaf._actions:
            if action.metavar in (*_FOLDERS, *_FILES):
                action.complete = shtab.DIRECTORY if action.metavar in _FOLDERS else shtab.FILE
    print(shtab.complete(parser, arguments.shell))
    return EXIT_OK
