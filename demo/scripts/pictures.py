"""Pictures of the documentation, drawn anew by the commands that the pages name, into docs/pictures.

    python -m demo.scripts.pictures                # all of them: minutes, on an idle machine
    python -m demo.scripts.pictures terminal memory

In: the bundled checkpoint and configs/. Out: `terminal.svg`, a recorded session, and the plots of `--plot`.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs/pictures"
TINY = "demo/checkpoints/internvl-tiny"
COLUMNS = 110
SESSION = (
    f'paddle-internvl chat {TINY} --image demo/assets/shapes.png --question "Describe the image."',
    f'paddle-internvl chat {TINY} --image demo/assets/shapes.png --question "蓝色的正方形在哪里？"',
    f"python -m convert hf2pd --src {TINY} --dst internvl-tiny-paddle",
    f"paddle-internvl verify {TINY} internvl-tiny-paddle | tail -n 4",
    "paddle-internvl estimate configs/internvl2_5-78b.json --gpus 8 --tp 1 --memory 80",
)
# name of a picture -> the commands that draw it as {out}
PLOTS = {
    "memory": ("paddle-internvl estimate configs/internvl2_5-78b.json --plot {out}.svg",),
    "errors": (
        f"python -m convert hf2pd --src {TINY} --dst internvl-tiny-int8 --quantize weight_only_int8",
        f"paddle-internvl verify {TINY} internvl-tiny-int8 --plot {{out}}.svg",
    ),
    "loss": (
        "python -m demo.finetune.captions captions",
        "paddle-internvl train demo/finetune/captions.json --plot {out}.svg",
    ),
    "scores": (
        "python -m demo.tiny.benchmark Tiny_DEV.tsv",
        f"paddle-internvl eval run {TINY} --data Tiny_DEV=Tiny_DEV.tsv",
        "paddle-internvl eval table outputs/internvl-tiny --bars {out}.svg",
    ),
    "growth": (
        "paddle-internvl bench growth configs/internvl2_5-1b.json --curves prompt --largest 2048 --plot {folder}",
    ),
}


def output_of(command: str, folder: Path) -> str:
    """Run a command line in a folder that has demo and configs; returns what it prints on stdout.

    Raises:
        subprocess.CalledProcessError: a signal ended it, or it was called wrongly; exit code 1 is an answer.
    """
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


def draw_terminal(folder: Path, file: Path) -> None:
    """Run the session and write it as the SVG of a terminal."""
    from rich.console import Console
    from rich.text import Text

    with open(os.devnull, "w") as sink:
        console = Console(record=True, width=COLUMNS, file=sink, color_system="truecolor", force_terminal=True)
        for command in SESSION:
            console.print(Text.assemble(("$ ", "bold green"), (shorten(command), "bold")))
            console.print(Text(output_of(command, folder).rstrip() + "\n"))
        svg = console.export_svg(title="paddle_internvl", unique_id="terminal")
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.S)  # fonts of another host
    svg = re.sub(r' textLength="[^"]*"([^>]*>[^<]*[\u3000-\u9fff])', r"\1", svg)  # of characters two cells wide
    file.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def shorten(command: str) -> str:
    """A command line as shown: folders of the demo by their last part."""
    return re.sub(r"demo/(checkpoints|assets)/", "", command)


def draw(name: str) -> list[Path]:
    """Draw a picture in a temporary folder; returns the files."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("demo", "configs"):
            (folder / part).symlink_to(ROOT / part)
        if name == "terminal":
            draw_terminal(folder, PICTURES / "terminal.svg")
        for command in PLOTS.get(name, ()):
            words = command.format(out=shlex.quote(str(PICTURES / name)), folder=shlex.quote(str(PICTURES)))
            print(f"$ {words}", flush=True)
            print(output_of(words, folder), end="", flush=True)
    return sorted(PICTURES.glob(f"{name}*"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = ["terminal", *PLOTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)} (default: all)")
    names = parser.parse_args().names
    if unknown := set(names) - set(every):
        parser.error(f"there is no picture {min(unknown)}")
    for name in names or every:
        for file in draw(name):
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1024:.0f} KiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
