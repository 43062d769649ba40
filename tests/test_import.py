"""Importing the package: no effect but the registration, whatever is imported first. Each in a new process."""

import os
import subprocess
import sys

import pytest

from tests.random_checkpoints import ROOT


def run(code: str, **environment) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**kept, **environment}, timeout=300
    )


def test_it_prints_nothing_and_imports_no_paddle(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); import paddle_internvl, sys; assert 'paddle' not in sys.modules"
    done = run(code, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == "" and not list(tmp_path.iterdir())


CHECK = """
from paddlenlp.transformers import AutoConfig, AutoModel, AutoTokenizer, TextIteratorStreamer
from paddle_internvl import InternVLChatModel, InternVLChatConfig
config = AutoConfig.from_pretrained({folder!r})
assert type(config) is InternVLChatConfig
assert AutoModel._get_model_class_from_config({folder!r}, {folder!r} + "/config.json") is InternVLChatModel
assert type(AutoTokenizer.from_pretrained({folder!r})).__module__ == "paddle_internvl.tokenizers.internlm2"
"""


@pytest.mark.parametrize(
    "first",
    [
        "import paddle_internvl",
        "import paddlenlp; import paddle_internvl",
        "import paddle; import paddle_internvl",
        "from paddle_internvl.configuration import InternVLChatConfig",
        "from paddle_internvl.models.decoder import DecoderForCausalLM",
        "from paddle_internvl import load_image",
    ],
)
def test_registration_in_any_order(first, hf_folders):
    done = run(first + CHECK.format(folder=str(hf_folders["dynamic_gqa"])))
    assert done.returncode == 0, done.stderr[-2000:]


def test_paddlenlps_own_models_are_untouched():
    done = run("""
import paddle_internvl
from paddlenlp.transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
config = LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32,
                     architectures=["LlamaForCausalLM"])
assert AutoModelForCausalLM._get_model_class_from_config(None, None, config) is LlamaForCausalLM
""")
    assert done.returncode == 0, done.stderr[-2000:]


def threads(code: str, **environment) -> str:
    done = run(code + "; import os; print(os.environ['OMP_NUM_THREADS'])", **environment)
    return done.stdout.strip()


def test_threads_are_the_cores_unless_the_user_said():
    cores = str(len(os.sched_getaffinity(0)))
    assert threads("import paddle_internvl") == cores
    assert threads("import paddle_internvl", OMP_NUM_THREADS="7") == "7"
    assert threads("import paddle; import paddle_internvl") == cores  # paddle itself had set 1
    assert threads("import paddle; import paddle_internvl", OMP_NUM_THREADS="1") == "1"
