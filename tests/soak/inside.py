"""`paddle-internvl serve` with a window in it, for the soak test.

    python -m tests.soak.inside serve CKPT ...

The server is the command's own. Two things are added: `PUBLIC`, an address of this machine, counts as one of the public
internet, so that media are really fetched without a network; and at SIGUSR1 the process writes what can't be
measured from outside, its asyncio tasks, its threads, the number of objects and of matchers of response formats, into
the file that `WINDOW` names in the environment.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

PUBLIC = "127.0.0.77"
WINDOW = "SOAK_WINDOW"


def show(*_) -> None:
    """Write what there is. Runs in the event loop's thread, as signal handlers do."""
    gc.collect()
    objects = gc.get_objects()
    seen = {
        "objects": len(objects),
        "matchers": sum(type(each).__name__ == "TokenMasks" for each in objects),
        "tasks": Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks()),
        "threads": Counter(thread.name.rstrip("0123456789_-") for thread in threading.enumerate()),
    }
    window = Path(os.environ[WINDOW])
    written = window.with_suffix(".new")
    written.write_text(json.dumps(seen))
    written.rename(window)


def main() -> int:
    """The command, prepared."""
    from paddle_internvl.media import addresses

    is_public = addresses.is_public
    addresses.is_public = lambda address: str(address) == PUBLIC or is_public(address)
    signal.signal(signal.SIGUSR1, show)
    from paddle_internvl.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
