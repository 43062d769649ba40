"""From the sources in `csrc` to a shared library: compiled once for a machine's Paddle, cached, loaded once a process.

In: sources, a C++ compiler, Paddle's headers. Out: the path of a library, or why there is none.

Compiled by the compiler itself and not by Paddle's `cpp_extension`, whose setup script takes four times as long and
includes all of Paddle's headers; the library is one of Paddle's custom operators all the same. It is linked with the
OpenMP library that Paddle brings, libiomp5: with a second one (libgomp) two pools of threads contend for the cores.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path

from paddle_internvl import progress, runtime

SOURCES = Path(__file__).parent / "csrc"
LIBRARY = "libpaddle_internvl_kernels.so"
FLAGS = (
    "-std=gnu++17", "-O3", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno",
    "-fno-trapping-math", "-Wno-psabi",
)  # fmt: skip
_LINKED = ("libs/libiomp5.so", "base/libpaddle.so", "libs/libphi.so", "libs/libphi_core.so", "libs/libcommon.so")
_NOT_BUILT = "sanitize*"  # a program of its own
_FAILED, _LOG, _DIGEST = "failed", "build.log", f"{LIBRARY}.sha256"
# Of compilers' messages, under LC_ALL=C: the machine failed, not the build; the next start tries again.
_TRANSIENT = ("No space left", "Disk quota", "Killed", "annot allocate memory", "out of memory", "Input/output error")
_logger = logging.getLogger(__name__)


class BuildError(RuntimeError):
    """Kernels can't be built; the message is one line."""


def cache_folder() -> Path:
    """Where libraries are kept: `PADDLE_INTERNVL_CACHE`, else ~/.cache/paddle_internvl, each with a folder kernels."""
    root = os.environ.get("PADDLE_INTERNVL_CACHE") or Path.home() / ".cache" / "paddle_internvl"
    return Path(root) / "kernels"


def library(force: bool = False) -> Path:
    """The library for these sources, this compiler and this Paddle; built if it is missing or its digest is wrong.

    Several processes may call this at once: one builds, the others wait for it. A build that the compiler refuses is
    not tried again until sources, compiler or Paddle change; one that a full disk or a kill ended is.

    Args:
        force: build anew, even if the library is there.
    Raises:
        BuildError: there is no compiler or no header, or the build failed, now or earlier.
    """
    paddle = _paddle_folder()
    compiler = _compiler()
    folder = cache_folder() / _fingerprint(compiler)
    if force or not _is_whole(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / "lock"):
                if force or not (_is_whole(folder) or _noted_failure(folder)):
                    _build(folder, paddle, compiler)
                failure = _noted_failure(folder)
        except OSError as error:
            way_out = "set PADDLE_INTERNVL_CACHE to another folder"
            raise BuildError(f"{folder} can't be written: {error}; {way_out}") from error
        if failure:
            raise BuildError(f"{failure}; `paddle-internvl build-kernels --force` tries again")
    return folder / LIBRARY


def _is_whole(folder: Path) -> bool:
    """Whether the library is as it was built: loading half a file would end the process by SIGBUS."""
    library, digest = folder / LIBRARY, folder / _DIGEST
    return library.exists() and digest.exists() and digest.read_text() == _sha256(library)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _noted_failure(folder: Path) -> str:
    """Why an earlier build failed; '' where none did."""
    note = folder / _FAILED
    return note.read_text() if note.exists() else ""


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    import fcntl  # not on Windows

    with open(file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _paddle_folder() -> Path:
    """Where Paddle is installed, found without importing it."""
    found = util.find_spec("paddle")
    folder = Path(found.origin).parent if found and found.origin else Path()
    if not (folder / "include" / "paddle").is_dir():
        raise BuildError("this Paddle came without its C++ headers; install it from its wheel")
    return folder


def _compiler() -> str:
    """The C++ compiler: `CXX`, else g++."""
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"there is no C++ compiler {name}; install g++ 9 or later, or name one by CXX")
    return path


def sources() -> list[Path]:
    return [file for file in sorted(SOURCES.glob("*.cc")) if not file.match(_NOT_BUILT)]


def _fingerprint(compiler: str) -> str:
    """Digest of everything that the library is built from: compiler, Paddle, flags, sources."""
    digest = hashlib.sha256()
    versions = [f"{name} {metadata.version(name)}" for name in ("paddlepaddle", "paddlepaddle-gpu") if _has(name)]
    compiler_version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    for text in (compiler_version, *versions, *FLAGS, *_LINKED, str(_paddle_folder())):
        digest.update(text.encode() + b"\0")
    for file in sorted(SOURCES.iterdir()):
        if file.suffix in (".cc", ".h") and not file.match(_NOT_BUILT):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _has(distribution: str) -> bool:
    return any(True for _ in metadata.distributions(name=distribution))


def _build(folder: Path, paddle: Path, compiler: str) -> None:
    """Compile into a folder aside, and move the library and its digest to their place; or note down why not.

    Raises:
        BuildError: the machine ended the build (full disk, no memory), not the compiler.
    """
    if (folder / LIBRARY).exists():
        _logger.warning("%s is built anew: forced, or the file is damaged", folder / LIBRARY)
    for name in (LIBRARY, _DIGEST, _FAILED):
        (folder / name).unlink(missing_ok=True)
    log, began = folder / _LOG, time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        objects = [Path(aside) / f"{source.stem}.o" for source in sources()]
        headers = [f"-I{paddle / 'include'}", f"-I{paddle / 'include' / 'third_party'}"]
        commands = [[compiler, *FLAGS, *headers, "-c", str(s), "-o", str(o)] for s, o in zip(sources(), objects)]
        progress.line("building CPU kernels, once: about half a minute")
        bar = progress.bar("building CPU kernels, once", len(commands), "file", delay=0)
        with bar, ThreadPoolExecutor(runtime.cpu_cores()) as pool:
            results = []
            for result in pool.map(_run, commands):
                results.append(result)
                bar.update()
        if all(code == 0 for code, _ in results):
            folders = sorted({str((paddle / name).parent) for name in _LINKED})
            link = [compiler, "-shared", *map(str, objects), "-o", str(Path(aside) / LIBRARY)]
            link += [f"-L{path}" for path in folders] + [f"-Wl,-rpath,{path}" for path in folders]
            link += [f"-l:{Path(name).name}" for name in _LINKED if (paddle / name).exists()]
            results.append(_run(link))
        output = "".join(text for _, text in results)
        log.write_text(output)
        if all(code == 0 for code, _ in results):
            (folder / _DIGEST).write_text(_sha256(Path(aside) / LIBRARY))
            os.replace(Path(aside) / LIBRARY, folder / LIBRARY)
            _logger.info("kernels built in %.0f s: %s", time.monotonic() - began, folder / LIBRARY)
        elif any(code < 0 for code, _ in results) or any(text in output for text in _TRANSIENT):
            raise BuildError(f"the machine ended the kernels' build, see {log}; the next start tries again")
        else:
            (folder / _FAILED).write_text(f"the kernels' build failed, see {log}")


def _run(command: list[str]) -> tuple[int, str]:
    environment = {**os.environ, "LC_ALL": "C"}  # the messages of `_TRANSIENT`
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    return done.returncode, f"$ {' '.join(command)}\n{done.stdout}"
