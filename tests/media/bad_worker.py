"""Stands in for `clip_worker` and misbehaves as the clip asks: `....ftyp<word>`.

A hanging worker leaves its process id in TMPDIR.
"""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

OUTPUTS = {
    "writes nothing": b"",
    "writes garbage": b"\xff\xfe{[",
    "writes a list": b"[]\n",
    "writes null": b"null\n",
    "writes a number": b"7\n",
    "writes no size": b"{}\n",
    "writes no frame": b'{"sizes": []}\n',
    "writes too little": b'{"sizes": [[9, 9]]}\n' + bytes(9),
    "writes a negative size": b'{"sizes": [[-9, 9]]}\n' + bytes(243),
    "writes texts": b'{"sizes": [["9", "9"]]}\n',
    "writes a huge size": b'{"sizes": [[1000000000, 1000000000]]}\n',
    "writes too much": b"x" * 10**6,
    "writes a wrong status": b'{"error": "x", "status": 700}\n',
}


def main(clip: int, output: int) -> None:
    word = os.pread(clip, 100, 8).decode()
    if word == "hangs deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    if word.startswith("hangs"):
        (Path(tempfile.gettempdir()) / f"worker.{os.getpid()}").touch()
        time.sleep(60)
    if word == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "prints its environment":
        os.write(output, json.dumps({"error": json.dumps(dict(os.environ)), "status": 400}).encode() + b"\n")
    os.write(output, OUTPUTS.get(word, b""))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
