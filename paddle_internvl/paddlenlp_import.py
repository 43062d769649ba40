"""Import hook for PaddleNLP, and its lean import: the border file that decides how `import paddlenlp` runs.

In: nothing. Out: a `paddlenlp` whose Auto classes load InternVL, be it imported before or after this package, by its
user or by a process of ours. This file imports neither Paddle nor PaddleNLP until it is asked to.

PaddleNLP's `__init__` imports all it has: taskflow, datasets, a server, scikit-learn, pandas ... three of the five
seconds of an import, for a model that needs `paddlenlp.transformers` only. Processes of ours take the lean import; a
user's own `from paddlenlp.transformers import AutoModel` runs PaddleNLP's `__init__` as ever.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

_LEAN_VERSION = "3.0.0b4"  # the PaddleNLP whose lean import is tested; any other one is imported whole


class _ImportHook:
    """Meta path finder: registers with PaddleNLP's Auto classes after its import, and ends a lean import where a
    subpackage is imported that the lean one left out."""

    skipped_init = None  # after a lean import: runs PaddleNLP's `__init__`

    def find_spec(self, name: str, path=None, target=None):
        """The spec of `paddlenlp`, or of a subpackage that `skipped_init` has imported; None for all other modules."""
        if name == "paddlenlp":
            return self._registering_spec(name, path, target)
        if self.skipped_init and name.startswith("paddlenlp.") and name.count(".") == 1:
            self.skipped_init()  # PaddleNLP's subpackages import each other in circles: only its own order works
            return ModuleSpec(name, _ImportedLoader()) if name in sys.modules else None
        return None

    def _registering_spec(self, name: str, path, target):
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            run_init = spec.loader.exec_module

            def exec_module(module) -> None:
                _provide_hub_download()
                run_init(module)
                _register()

            spec.loader.exec_module = exec_module
        return spec


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


_hook = _ImportHook()


def install_hook() -> None:
    """Register with PaddleNLP's Auto classes: now if it is imported already, otherwise as soon as it is."""
    if "paddlenlp" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _hook)


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
        _provide_hub_download()
        import_module("paddlenlp.data")  # before transformers, which otherwise imports itself in a circle
        _register()
        import_module("paddle").disable_signal_handler()  # the last line of PaddleNLP's __init__
    except BaseException:
        del sys.modules["paddlenlp"]
        raise

    def run_init() -> None:
        _hook.skipped_init = None
        del package.__getattr__
        spec.loader.exec_module(package)

    def missing(name: str):
        if name.startswith("__"):  # Python's own questions, such as `__wrapped__`
            raise AttributeError(f"module 'paddlenlp' has no attribute {name!r}")
        run_init()
        return getattr(package, name)

    _hook.skipped_init, package.__getattr__ = run_init, missing


def _register() -> None:
    import_module("paddle_internvl.registration").register()


def _provide_hub_download() -> None:
    """Give aistudio-sdk from 0.3 on the `hub.download` that PaddleNLP imports, and this package never calls: PaddleOCR
    3 needs such an aistudio-sdk, and could not be installed beside PaddleNLP otherwise."""
    try:
        hub = import_module("aistudio_sdk.hub")
    except ImportError:  # PaddleNLP's own import says what is missing
        return
    if not hasattr(hub, "download"):
        hub.download = _removed_download


def _removed_download(*_args, **_options):
    raise ImportError(
        "aistudio-sdk 0.3 has no hub.download, which PaddleNLP's from_aistudio needs; "
        "load by hub='aistudio', or pip install 'aistudio-sdk<0.3'"
    )
