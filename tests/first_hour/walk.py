"""A newcomer's first hour: every command of README.md on a clean clone with empty caches, each with its time.

    make first-hour                     # or: python -m tests.first_hour.walk [--keep FOLDER]

`make demo` has a limit of time and `.venv` one of size. Servers run until they are ready; commands that ask a hub are
left out, conversations read a question from stdin. Python blocks run one after the other in a new process. At the end
the demo's examples in both languages are answered, and `git status` has to be clean. Exit code 1 when a command or a
limit fails. Needs a package registry, and the ports 23333 and 7860.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.docs.pages import blocks
from tests.random_checkpoints import ROOT

SECONDS, BYTES = 90, 2e9  # of the first `make demo`, and of the .venv that it makes
TIMEOUT = 900
LEFT_OUT = {
    "make ": "run by the walk itself, or longer than an hour",
    "source ": "the walk has .venv/bin in its PATH",
    "pip install": "for a machine without `make`",
    "paddle-internvl download": "asks a hub",
    "HF_ENDPOINT=": "asks a hub",
}
QUESTION = {"id": "a", "prompt": "How many objects are there?", "images": ["demo/assets/shapes.png"]}
CONVERSATION = f"/image {QUESTION['images'][0]}\n{QUESTION['prompt']}\n/exit\n"
CLOSING = (
    "python -m pytest tests/webdemo/test_examples.py",
    "git status --porcelain | tee /dev/stderr | wc -l | grep -qx 0",
)
READY = {"paddle-internvl serve": "http://127.0.0.1:23333/health", "paddle-internvl demo": "http://127.0.0.1:7860"}
SERVER = ("paddle-internvl serve demo/checkpoints/internvl-tiny", READY["paddle-internvl serve"])


class Walk:
    """The clone, the environment of a new user, and the results.

    Attributes:
        rows: command, seconds, failure or ''.
    """

    def __init__(self, folder: Path):
        self.clone, self.rows = folder / "clone", []
        caches = ("XDG_CACHE_HOME", "UV_CACHE_DIR", "PIP_CACHE_DIR", "PADDLE_INTERNVL_CACHE", "HF_HOME")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))},
            **{name: str(folder / "caches" / name.lower()) for name in caches},
            "PATH": f"{self.clone / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        }
        self.server: subprocess.Popen | None = None

    def note(self, command: str, seconds: float, failure: str = "") -> None:
        self.rows.append((command, seconds, failure))
        print(f"{seconds:7.1f} s  {'FAILED ' + failure if failure else 'ok'}  {command[:100]}", flush=True)

    def run(self, command: str, text: str | None = None) -> None:
        """Run a shell command, with a text on its stdin."""
        began = time.monotonic()
        done = subprocess.run(
            command, shell=True, cwd=self.clone, env=self.environment, input=text or "", capture_output=True, text=True,
            timeout=TIMEOUT, executable="/bin/bash",
        )  # fmt: skip
        failure = f"({done.returncode}) {(done.stderr or done.stdout)[-300:]}" if done.returncode else ""
        self.note(command, time.monotonic() - began, failure)

    def serve(self, command: str, url: str) -> None:
        """Start a server in place of the one that runs, and wait until it is ready."""
        self.stop()
        began = time.monotonic()
        self.server = subprocess.Popen(
            ["/bin/bash", "-c", f"exec {command}"], cwd=self.clone, env=self.environment, stderr=subprocess.DEVNULL
        )
        while time.monotonic() - began < TIMEOUT and self.server.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return self.note(command, time.monotonic() - began)
            except OSError:
                time.sleep(0.1)
        self.note(command, time.monotonic() - began, f"not ready, exit code {self.server.poll()}")

    def stop(self) -> None:
        """End the server; SIGTERM ends it with exit code 0."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            if code := self.server.wait(TIMEOUT):
                self.note("SIGTERM to the server", 0, f"exit code {code}")
        self.server = None

    def readme(self) -> None:
        """Run the blocks of README.md in their order, with a file of questions as `batch` takes it."""
        (self.clone / "questions.jsonl").write_text(json.dumps(QUESTION) + "\n")
        python = ""
        for block in blocks(self.clone / "README.md"):
            if block.language == "python":
                python += block.text
                self.run("python -", python)
            for line in block.text.replace("\\\n", " ").splitlines() if block.language == "bash" else ():
                command = line.partition("  #")[0].strip()
                if not command or command.startswith(tuple(LEFT_OUT)):
                    continue
                url = next((url for words, url in READY.items() if command.startswith(words)), None)
                if " --url " in command:  # its server comes later on the page
                    self.serve(*SERVER)
                self.serve(command, url) if url else self.run(command, CONVERSATION)
        self.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="clone there, and leave it")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        walk = Walk(keep or Path(scratch))
        subprocess.run(["git", "clone", "-q", str(ROOT), str(walk.clone)], check=True)
        walk.run("make demo")
        size = sum(file.lstat().st_size for file in (walk.clone / ".venv").rglob("*") if not file.is_symlink())
        if walk.rows[-1][1] > SECONDS:
            walk.note("make demo", walk.rows[-1][1], f"longer than {SECONDS} s")
        walk.note(f".venv: {size / 1e9:.2f} GB", 0, "" if size < BYTES else f"larger than {BYTES / 1e9:g} GB")
        walk.run("make setup")
        try:
            walk.readme()
        finally:
            walk.stop()
        for command in CLOSING:
            walk.run(command)
    failed = [row for row in walk.rows if row[2]]
    print(f"{len(walk.rows)} commands, {len(failed)} failed, {sum(row[1] for row in walk.rows):.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
