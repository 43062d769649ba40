"""What a notebook needs before its first import: packages, commands on the PATH, a folder to write to.

In: names of extras of setup.py, and further requirements. Out: the folder. Where everything is installed, nothing is.
On AI Studio packages go to a folder that outlives the session, and the image's Paddle is never replaced: pip is first
asked what it would install there, and just that is put beside it. Knows no model and imports no Paddle.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
AISTUDIO = Path("/home/aistudio")
_LAUNCHER = """#!{python}
import sys

from paddle_internvl.cli.main import main

sys.exit(main())
"""


def prepare(*extras: str, also: Sequence[str] = ()) -> Path:
    """Make imports and commands of a notebook work, and say in one line what was done.

    Args:
        extras: of setup.py, e.g. 'serve'. also: further requirements, e.g. 'openai>=1.60'.
    Returns:
        The folder for what the notebook writes: work/internvl on AI Studio, which is kept, else ./internvl-work.
    Raises:
        RuntimeError: an old Paddle, none beside a card, or a package that pip can't install; says what to do.
    """
    on_aistudio = AISTUDIO.is_dir()
    libraries = AISTUDIO / "external-libraries" if on_aistudio else None
    _reach(ROOT, libraries)
    wanted = [*paddle_requirement(), *requirements(*extras), *also]
    lacking = [text for text in wanted if not is_installed(text)]
    if lacking:
        _install(lacking, libraries)
        importlib.invalidate_caches()
    work = AISTUDIO / "work/internvl" if on_aistudio else Path("internvl-work")
    work.mkdir(parents=True, exist_ok=True)
    if shutil.which("paddle-internvl") is None:
        _write_launcher((libraries or work) / "bin")
    if not lacking:
        print("环境就绪，无需安装 / ready, nothing to install")
    return work


def locate(checkpoint: str) -> str:
    """The folder of a checkpoint.

    Args:
        checkpoint: a folder, also one of this repository, or a hub id, which is downloaded into the client's cache.
    """
    for folder in (Path(checkpoint), ROOT / checkpoint):
        if folder.is_dir():
            return str(folder)
    from paddle_internvl.checkpoints.hub import folder_of

    return str(folder_of(checkpoint))


def requirements(*extras: str) -> list[str]:
    """What setup.py asks for, read from its two tables."""
    tables = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("REQUIRED", "EXTRAS"):
            tables[node.targets[0].id] = ast.literal_eval(node.value)
    return [*tables["REQUIRED"], *(text for extra in extras for text in tables["EXTRAS"][extra])]


def is_installed(requirement: str) -> bool:
    """Whether a requirement is met here, or is not one of this platform and Python."""
    asked = Requirement(requirement)
    if asked.marker and not asked.marker.evaluate({"extra": ""}):
        return True
    try:
        return asked.specifier.contains(metadata.version(asked.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def paddle_requirement() -> list[str]:
    """Nothing where some build of Paddle 3 is installed, else the CPU build.

    Raises:
        RuntimeError: an older Paddle, or a card without any.
    """
    if find_spec("paddle"):
        for name in metadata.packages_distributions().get("paddle", []):
            version = metadata.version(name)
            if Version(version).major < 3:
                raise RuntimeError(
                    f"本镜像为 {name} {version}，需要 Paddle 3.x：请在启动环境时选择 PaddlePaddle 3.x 镜像 / "
                    f"this image has {name} {version}; start the environment with an image of PaddlePaddle 3.x"
                )
        return []
    if shutil.which("nvidia-smi"):
        raise RuntimeError(
            "检测到显卡，但没有安装 Paddle / there is a card but no Paddle; take the GPU build that fits your CUDA "
            "from https://www.paddlepaddle.org.cn/install/quick"
        )
    return requirements("cpu")[-1:]


def _reach(root: Path, libraries: Path | None) -> None:
    """Let this kernel and the commands it starts find the repository and the kept packages, before the image's own."""
    folders = [str(root), *([str(libraries)] if libraries else [])]
    sys.path[:] = [*folders, *(folder for folder in sys.path if folder not in folders)]
    _put_first("PYTHONPATH", folders)
    _put_first("PATH", [str(Path(sys.executable).parent), *([str(libraries / "bin")] if libraries else [])])
    os.environ.setdefault("NO_COLOR", "1")
    os.environ.setdefault("COLUMNS", "100")


def _put_first(variable: str, folders: list[str]) -> None:
    others = [item for item in os.environ.get(variable, "").split(os.pathsep) if item and item not in folders]
    os.environ[variable] = os.pathsep.join([*folders, *others])


def _install(lacking: list[str], libraries: Path | None) -> None:
    """Install requirements; into `libraries`, if given, only what the image does not have, and no Paddle."""
    if libraries is None:
        _pip("install", *lacking)
        names = [canonicalize_name(Requirement(text).name) for text in lacking]
    else:
        planned = json.loads(_pip("install", "--dry-run", "--report", "-", *lacking))["install"]
        pins = {canonicalize_name(i["metadata"]["name"]): i["metadata"]["version"] for i in planned}
        _pip("install", "--no-deps", "--upgrade", "--target", str(libraries), *(f"{n}=={v}" for n, v in pins.items()))
        names = list(pins)
    print(f"已安装 {len(names)} 个包 / installed {len(names)} packages: {', '.join(sorted(names))}")
    importlib.invalidate_caches()
    homes = {module for module, owners in metadata.packages_distributions().items() if _own(owners, names)}
    loaded = sorted(homes & sys.modules.keys())
    if loaded:
        print(f"请重启内核后再运行一次 / restart the kernel and run again: {', '.join(loaded)}")


def _own(owners: list[str], names: list[str]) -> bool:
    return any(canonicalize_name(owner) in names for owner in owners)


def _pip(*arguments: str) -> str:
    """What pip writes to stdout.

    Raises:
        RuntimeError: pip failed; carries its last line.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"pip {arguments[0]} failed: {last}; try another index with PIP_INDEX_URL")
    return done.stdout


def _write_launcher(folder: Path) -> None:
    """A `paddle-internvl` command for a repository that is used without being installed."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "paddle-internvl"
    launcher.write_text(_LAUNCHER.format(python=sys.executable), encoding="utf-8")
    launcher.chmod(0o755)
    _put_first("PATH", [str(folder.resolve())])
