"""Import hook for PaddleNLP, and its lean import: the border file that decides how `import paddlenlp` runs.

In: nothing. Out: a `paddlenlp` whose Auto classes load InternVL, be it imported before or after this package, by its
user or by a process of ours. This file imports neither Paddle nor PaddleNLP until it is asked to.

PaddleNLP's `__init__` imports all it has: taskflow, datasets, a server, scikit-learn, pandas ... three of the five
seconds of an import, for a model that needs `paddlenlp.transformers` only. Processes of ours take the lean import; a
user's own `from paddlenlp.transformers import AutoModel` runs PaddleNLP's `__init__` as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

from paddle_internvl import import_hook

_LEAN_VERSION = "3.0.0b4"  # the PaddleNLP whose lean import is tested; any other one is imported whole


class _SkippedInit:
    """Meta path finder in a process with the lean import: a subpackage that it left out needs PaddleNLP's `__init__`,
    because the subpackages import each other in circles, and only its order works."""

    def __init__(self, run_init: Callable[[], None]):
        self._run_init = run_init

    def find_spec(self, name: str, path=None, target=None):
        """The spec of a subpackage that `__init__` has imported; None for all other modules."""
        if name.startswith("paddlenlp.") and name.count(".") == 1:
            self._run_init()
            return ModuleSpec(name, _ImportedLoader()) if name in sys.modules else None
        return None


class _ImportedLoader:
    """Loader of a module that was imported while its spec was looked for."""

    def create_module(self, spec: ModuleSpec):
        """The module that is there; its spec is kept."""
        module = sys.modules[spec.name]
        self._spec = module.__spec__
        return module

    def exec_module(self, module) -> None:
        """Nothing is run again."""
        module.__spec__ = self._spec


def install_hook() -> None:
    """Register with PaddleNLP's Auto classes: now if it is imported already, otherwise as soon as it is."""
    import_hook.install("paddlenlp", before=provide_hub_download, after=_register)


def import_lean() -> None:
    """Import `paddlenlp.transformers` without running PaddleNLP's `__init__`.

    `sys.modules["paddlenlp"]` becomes the real package with an empty body. The first request for what it lacks, a name
    (`paddlenlp.Taskflow`) or a subpackage (`import paddlenlp.trainer`), runs the real `__init__`. Another version of
    PaddleNLP than the tested one is imported whole, and one that is imported already stays as it is.
    """
    from importlib import metadata  # takes a tenth of the time of `paddle-internvl --help`

    if "paddlenlp" in sys.modules or metadata.version("paddlenlp") != _LEAN_VERSION:
        import_module("paddlenlp")
        return
    spec = find_spec("paddlenlp")
    package = module_from_spec(spec)
    package.__version__ = _LEAN_VERSION
    sys.modules["paddlenlp"] = package
    try:
        provide_hub_download()
        import_module("paddlenlp.data")  # before transformers, which otherwise imports itself in a circle
        _register(package)
        import_module("paddle").disable_signal_handler()  # the last line of PaddleNLP's __init__
    except BaseException:
        del sys.modules["paddlenlp"]
        raise

    def run_init() -> None:
        sys.meta_path.remove(finder)
        del package.__getattr__
        spec.loader.exec_module(package)

    def missing(name: str):
        if name.startswith("__"):  # Python's own questions, such as `__wrapped__`
            raise AttributeError(f"module 'paddlenlp' has no attribute {name!r}")
        run_init()
        return getattr(package, name)

    finder, package.__getattr__ = _SkippedInit(run_init), missing
    sys.meta_path.insert(0, finder)


def _register(_paddlenlp) -> None:
    import_module("paddle_internvl.registration").register()


def provide_hub_download() -> None:
    """Give aistudio-sdk from 0.3 on the `hub.download` that PaddleNLP imports: PaddleOCR 3 needs such an aistudio-sdk,
    and could not be installed beside PaddleNLP otherwise."""
    try:
        hub = import_module("aistudio_sdk.hub")
    except ImportError:  # PaddleNLP's own import says what is missing
        return
    if not hasattr(hub, "download"):
        hub.download = _hub_download


def _hub_download(repo_id: str, filename: str, revision: str = "master", cache_dir: str | None = None) -> dict:
    """`aistudio_sdk.hub.download` as PaddleNLP's `aistudio_download` calls it, by the function that took its place."""
    download = import_module("aistudio_sdk.file_download").model_file_download
    return {"path": download(repo_id, filename, revision=revision, local_dir=cache_dir)}
