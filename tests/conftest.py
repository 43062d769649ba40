"""Fixtures that several packages' tests share: random checkpoints on disk, and models and tokenizers from them."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
import warnings

import pytest

warnings.filterwarnings("ignore")
# Hub caches of this run alone, set before the clients are imported: no test finds what an earlier one downloaded.
_CACHES = tempfile.TemporaryDirectory(prefix="hub-caches-")
os.environ.update(dict.fromkeys(("HF_HOME", "MODELSCOPE_CACHE", "AISTUDIO_HUB_CACHE"), _CACHES.name))

from paddle_internvl import startup  # noqa: E402

startup.import_paddle()  # lean: before a test module imports the whole of PaddleNLP

from tests.families import CASES, MEMBERS  # noqa: E402
from tests.random_checkpoints import random_checkpoint, tiny_config  # noqa: E402

# Begun first, so that no worker of pytest-xdist is left alone with one of them at the end. test_accessibility.py begins
# in a fresh worker: at the end of two whole runs its page kept a core busy for minutes, for a reason that is not known.
LONGEST = (
    "webdemo/test_browser.py", "webdemo/test_accessibility.py", "demo/test_notebooks.py", "training/test_ranks.py",
    "cli/test_batch.py", "gpu/test_graphs.py", "parallel/test_sharded_layers.py", "serve/test_replicas.py",
    "parallel/test_processes.py", "serve/test_fuzz.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    files = [f"tests/{name}::" for name in LONGEST]
    items.sort(key=lambda item: next((i for i, file in enumerate(files) if item.nodeid.startswith(file)), len(files)))
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        return
    skip = pytest.mark.skip(reason="torch and transformers are not installed")
    for item in items:
        if "torch" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def logs_as_before():
    """What a command sets up for its log ends with the test, or with the module's fixtures: its stream is theirs."""
    _reset_logs()
    yield
    _reset_logs()


def _reset_logs():
    logging.disable(logging.NOTSET)
    for name in ("paddle_internvl", "uvicorn", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("paddle_internvl", "uvicorn"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate, logger.disabled = [], True, False
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def hf_folders(tmp_path_factory):
    """case -> a raw Hugging Face folder with random weights."""
    root = tmp_path_factory.mktemp("hf")
    return {case: random_checkpoint(root / case, tiny_config(case)) for case in (*CASES, *MEMBERS)}


@pytest.fixture(scope="session")
def models(hf_folders):
    """case -> the model loaded from its raw folder. Tests must leave it as it is."""
    from paddlenlp.transformers import AutoModel

    return {case: AutoModel.from_pretrained(str(folder)) for case, folder in hf_folders.items()}


@pytest.fixture(scope="session")
def tokenizer(hf_folders):
    from paddlenlp.transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(hf_folders["dynamic_gqa"]))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def decoder(models, case):
    """The language model of a case, without gradients."""
    import paddle

    with paddle.no_grad():
        yield models[case].language_model
