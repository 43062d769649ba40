"""Stands in for `clip_worker` and misbehaves as the clip says: `....ftyp<word>`."""

import json
import os
import signal
import sys
import time


def main(clip: int, answer: int) -> None:
    word = os.pread(clip, 100, 8).decode()
    if word == "hangs":
        time.sleep(60)
    if word == "hangs deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
        time.sleep(60)
    if word == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "tells":
        os.write(answer, json.dumps({"error": json.dumps(dict(os.environ)), "status": 400}).encode() + b"\n")
    told = {
        "says nothing": b"",
        "says garbage": b"\xff\xfe{[",
        "says a list": b"[]\n",
        "says null": b"null\n",
        "says a number": b"7\n",
        "says no size": b"{}\n",
        "says no frame": b'{"sizes": []}\n',
        "says less": b'{"sizes": [[9, 9]]}\n' + bytes(9),
        "says minus": b'{"sizes": [[-9, 9]]}\n' + bytes(243),
        "says texts": b'{"sizes": [["9", "9"]]}\n',
        "says huge": b'{"sizes": [[1000000000, 1000000000]]}\n',
        "says much": b"x" * 10**6,
        "says wrong status": b'{"error": "x", "status": 700}\n',
    }
    os.write(answer, told.get(word, b""))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
