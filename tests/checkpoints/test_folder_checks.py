"""Checks of checkpoint folders: each kind of wrong folder is named in one line, by every command, without Paddle."""

import json
import shutil
import subprocess
import sys

import pytest

from convert import CheckpointError
from paddle_internvl.checkpoints.folder_checks import chat_folder
from paddle_internvl.cli.main import main
from tests.random_checkpoints import ROOT, TINY

BUNDLED = ROOT / "demo/checkpoints/internvl-tiny"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
CONFIG = (BUNDLED / "config.json").read_text()
FOLDERS = {  # name -> files, the one line of the error
    "empty": ({}, "is empty; give the folder of an InternVL checkpoint, or a hub id"),
    "other": ({"config.json": '{"model_type": "qwen2_vl"}'}, "is no InternVL chat model: its config.json has model_ty"),
    "list": ({"config.json": "[1]"}, "config.json holds no JSON object"),
    "broken": ({"config.json": "{no"}, "config.json is not valid JSON"),
    "outer": (
        {"inner/config.json": CONFIG},
        "outer has no config.json; give the folder of an InternVL checkpoint, or ",
    ),
    "lora": ({"adapter_config.json": "{}"}, "lora is a LoRA adapter (adapter_config.json), not a whole model; merge"),
    "paddlenlp-lora": (
        {"config.json": CONFIG, "lora_config.json": "{}", "lora_model_state.pdparams": ""},
        "is a LoRA adapter (lora_config.json), not a whole model; merge it into its base model first",
    ),
    "paddlemix": (
        {"config.json": CONFIG, "model_state.pdparams": ""},
        "holds weights of PaddleMIX or PaddleNLP (model_state.pdparams), a pickle that can run code when read; take",
    ),
    "paddlenlp": (
        {"model_config.json": "{}", "model_state.pdparams": ""},
        "holds weights of PaddleMIX or PaddleNLP (model_state.pdparams), a pickle",
    ),
    "pickle": ({"config.json": CONFIG, "pytorch_model.bin": ""}, "holds weights as a pickle (pytorch_model.bin)"),
    "pointer": ({"config.json": CONFIG, "model.safetensors": POINTER}, "model.safetensors is a Git LFS pointer, not"),
    "pointers": ({"config.json": POINTER}, "config.json is a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "language": (
        {"config.json": json.dumps({"model_type": "internvl_chat", "llm_config": {"architectures": ["Other"]}})},
        "holds neither model.safetensors nor model.safetensors.index.json; is the download complete?",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for name, (files, _) in FOLDERS.items():
        (root / name).mkdir()
        for path, text in files.items():
            (root / name / path).parent.mkdir(exist_ok=True)
            (root / name / path).write_text(text)
    return root


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wrong_folder_is_named(name, folders):
    with pytest.raises(CheckpointError) as caught:
        chat_folder(folders / name)
    assert str(folders / name) in str(caught.value) and FOLDERS[name][1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_nested_folder_is_suggested(folders):
    with pytest.raises(CheckpointError, match=f"did you mean {folders / 'outer/inner'}"):
        chat_folder(folders / "outer")


def test_an_unsupported_language_model_is_named(folders, tmp_path):
    shutil.copytree(folders / "language", tmp_path / "model")
    shutil.copy(BUNDLED / "model.safetensors", tmp_path / "model")
    with pytest.raises(CheckpointError, match="llm_config.architectures='Other' is not supported; supported"):
        chat_folder(tmp_path / "model")


def test_a_folder_without_a_tokenizer_is_refused_before_paddle_is_imported(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="model has no vocabulary .*; copy the tokenizer's files"):
        chat_folder(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has no tokenizer_config.json with a tokenizer_class; copy the token"):
        chat_folder(folder)


def test_right_folders():
    assert chat_folder(BUNDLED) == BUNDLED
    config = TINY / "dynamic_gqa.json"
    assert chat_folder(config, weights=False) == config
    with pytest.raises(CheckpointError, match="dynamic_gqa.json is a file; give the checkpoint's folder"):
        chat_folder(config)


COMMANDS = {  # words before the folder and after it
    "chat": ([], ["--question", "hello"]),
    "serve": ([], ["--server-port", "0"]),
    "demo": ([], ["--server-port", "0"]),
    "batch": (["IN", "OUT"], ["--workers", "0"]),
    "verify": ([str(BUNDLED)], []),
    "info": ([], []),
    "estimate": ([], []),
}


def test_every_command_refuses_another_model_without_paddle(folders, tmp_path):
    """In one process, which has not imported Paddle afterwards either."""
    (tmp_path / "in").write_text("{}")
    places = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")}
    calls = [
        [command, *(places.get(word, word) for word in before), str(folders / "other"), *after]
        for command, (before, after) in COMMANDS.items()
    ]
    code = f"""
import sys
from paddle_internvl.cli.main import main
assert [main(words) for words in {calls!r}] == [2] * {len(calls)}
assert not {{"paddle", "paddlenlp"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(calls)
    assert all(line.startswith(f"error: {folders / 'other'} is no InternVL chat model") for line in lines)


def test_the_context_limits_new_tokens(capsys):
    assert main(["chat", str(BUNDLED), "--question", "hello", "--max-new-tokens", "100000"]) == 2
    assert "--max-new-tokens 100000 is above the context of 16384 tokens" in capsys.readouterr().err
