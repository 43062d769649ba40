"""Importing the package, in new processes: no effect but registration, whatever is imported first, lean or whole."""

import os
import subprocess
import sys
from types import SimpleNamespace

from paddle_internvl import paddlenlp_import
from tests.random_checkpoints import ROOT


def run(code: str, **environment) -> str:
    """stdout of a Python program that ends well."""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, cwd=ROOT, env={**kept, **environment}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


THREADS = "import os; print(os.environ['OMP_NUM_THREADS'], *os.listdir(), 'paddle' in sys.modules)"


def test_import_prints_nothing_imports_no_paddle_and_sets_threads(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); import paddle_internvl, sys; {THREADS}"
    cores = len(os.sched_getaffinity(0))
    assert run(code, PYTHONPATH=str(ROOT)) == f"{cores} False"
    assert run(code, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="7") == "7 False"


CHECK = """
from paddlenlp.transformers import AutoConfig, AutoModel, AutoTokenizer, TextIteratorStreamer
from paddle_internvl import InternVLChatModel, InternVLChatConfig
config = AutoConfig.from_pretrained({folder!r})
assert type(config) is InternVLChatConfig
assert AutoModel._get_model_class_from_config({folder!r}, {folder!r} + "/config.json") is InternVLChatModel
assert type(AutoTokenizer.from_pretrained({folder!r})).__module__ == "paddle_internvl.tokenizers.internlm2"

from paddlenlp.transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32,
                     architectures=["LlamaForCausalLM"])
assert AutoModelForCausalLM._get_model_class_from_config(None, None, config) is LlamaForCausalLM  # PaddleNLP's own
import os, sys
print(os.environ["OMP_NUM_THREADS"], "sklearn" in sys.modules)
"""


def test_registration_after_the_whole_import(hf_folders):
    """Also of `import paddle` before this package: Paddle itself sets one thread."""
    first = "import paddle, paddlenlp, paddle_internvl"
    cores = len(os.sched_getaffinity(0))
    assert run(first + CHECK.format(folder=str(hf_folders["dynamic_gqa"]))) == f"{cores} True"


def test_a_user_s_threads_are_kept_when_paddle_came_first():
    assert run("import paddle, paddle_internvl, os; print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="1") == "1"


AISTUDIO_SDK_0_3 = "import aistudio_sdk.hub as hub; del hub.download\n"
LEAN = """
import paddlenlp
assert paddlenlp.__version__ and not hasattr(paddlenlp, "__wrapped__")
assert not {"sklearn", "pandas", "datasets", "fastapi"} & sys.modules.keys()
from paddlenlp.trainer import Trainer, TrainingArguments  # a subpackage that a lean import leaves out
import paddlenlp.peft as peft
assert peft is sys.modules["paddlenlp.peft"] is paddlenlp.peft and peft.__spec__.origin == peft.__file__
from paddlenlp.transformers import AutoModel
assert Trainer is paddlenlp.trainer.Trainer and AutoModel is paddlenlp.transformers.AutoModel
print(paddlenlp.Taskflow.__name__, paddlenlp.peft.LoRAModel.__name__, "sklearn" in sys.modules)
"""


def test_lean_import_becomes_the_whole_one(hf_folders):
    """The first request for a name of PaddleNLP that the lean import left out runs the whole import."""
    first = "import paddle; from paddle_internvl import AutoModel"
    code = AISTUDIO_SDK_0_3 + first + CHECK.format(folder=str(hf_folders["dynamic_gqa"])) + LEAN
    cores = len(os.sched_getaffinity(0))
    assert run(code).splitlines() == [f"{cores} False", "Taskflow LoRAModel True"]


def test_hub_download_of_a_newer_aistudio_sdk(monkeypatch):
    from paddlenlp.transformers.aistudio_utils import aistudio_download

    calls = []
    newer = SimpleNamespace(model_file_download=lambda *args, **options: calls.append((args, options)) or "a file")
    monkeypatch.setitem(sys.modules, "aistudio_sdk.file_download", newer)
    monkeypatch.delattr("aistudio_sdk.hub.download")
    paddlenlp_import.provide_hub_download()
    monkeypatch.setattr("paddlenlp.transformers.aistudio_utils.download", sys.modules["aistudio_sdk.hub"].download)
    assert aistudio_download("me/tiny", "config.json", cache_dir="here") == "a file"
    assert calls == [(("me/tiny", "config.json"), {"revision": "master", "local_dir": "here"})]


def test_another_paddlenlp_is_imported_whole(monkeypatch):
    imported = []
    monkeypatch.setattr(paddlenlp_import, "import_module", imported.append)
    paddlenlp_import.import_lean()
    assert imported == ["paddlenlp"]  # it is imported already: nothing changes
    monkeypatch.delitem(sys.modules, "paddlenlp")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.0.0b5")
    paddlenlp_import.import_lean()
    assert imported == ["paddlenlp"] * 2 and "paddlenlp" not in sys.modules
