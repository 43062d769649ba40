"""Hub ids: download, cache, resumed transfers, and the error of every failure.

The clients are the real ones; the hubs are `tests.checkpoints.hubs`' server. Every test has caches of its own:
an earlier run's downloads are not there."""

import dataclasses
import errno
import logging
import os
import shutil
import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from paddle_internvl.checkpoints import hub, hub_clients
from paddle_internvl.checkpoints.hub import HubError, folder_of
from tests.checkpoints.hubs import COMMIT, serving
from tests.random_checkpoints import ROOT

BUNDLED = ROOT / "demo/checkpoints/internvl-tiny"
NAME = "OpenGVLab/InternVL-Tiny"
HUBS = tuple(hub_clients.HUBS)
NEVER = ("modeling.py", "pytorch_model.bin", "training_args.pt", "examples/a.json", "README.md", "picture.png")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The bundled checkpoint beside files that must never be downloaded."""
    folder = tmp_path_factory.mktemp("repository") / "tiny"
    shutil.copytree(BUNDLED, folder)
    (folder / "examples").mkdir()
    for name in NEVER:
        (folder / name).write_text("never")
    return folder


@pytest.fixture
def hubs(repository, tmp_path, monkeypatch):
    """The server, and an environment in which every client downloads from it into folders below tmp_path."""
    import huggingface_hub.constants

    aistudio = import_module("paddlenlp.utils.download.aistudio_hub_download")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(aistudio, "AISTUDIO_HUB_CACHE", str(tmp_path / "aistudio"))
    with serving({NAME: repository, "me/tiny": repository}) as server:
        for each in hub_clients.HUBS.values():
            monkeypatch.setenv(each.endpoint, server.url)
            monkeypatch.delenv(each.token, raising=False)
        monkeypatch.delenv(hub.VARIABLE, raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope-home"))
        yield server


@pytest.fixture
def no_retries(monkeypatch):
    """Clients that do not try again, and write in small pieces."""
    import huggingface_hub.constants
    import modelscope_hub._download
    import paddlenlp.utils.download.common

    monkeypatch.setattr(modelscope_hub._download, "DOWNLOAD_RETRY_TIMES", 0)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(paddlenlp.utils.download.common, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(modelscope_hub._download, "DOWNLOAD_CHUNK_SIZE", 1 << 16)


def same_files(folder) -> bool:
    names = [file.name for file in BUNDLED.iterdir() if file.name != "README.md"]
    return all((folder / name).read_bytes() == (BUNDLED / name).read_bytes() for name in names)


@pytest.mark.parametrize("kind", HUBS)
def test_from_an_id_to_an_answer(kind, hubs, tmp_path):
    from paddlenlp.transformers import AutoConfig, AutoModel, AutoTokenizer

    from paddle_internvl.configuration import InternVLChatConfig

    options = {"hub": kind, "cache_dir": str(tmp_path)}
    config = AutoConfig.from_pretrained(NAME, **options)
    assert type(config) is InternVLChatConfig and "model.safetensors" not in hubs.names()
    tokenizer = AutoTokenizer.from_pretrained(NAME, **options)
    assert type(tokenizer).__module__ == "paddle_internvl.tokenizers.internlm2"
    assert "model.safetensors" not in hubs.names()
    model = AutoModel.from_pretrained(NAME, dtype="float32", **options)
    assert hubs.names().count("model.safetensors") == 1
    local = AutoModel.from_pretrained(str(BUNDLED))
    settings = {"max_new_tokens": 12}
    question = "What can you do?"
    answer = model.chat(tokenizer, None, question, settings)
    assert answer == local.chat(local.tokenizer, None, question, settings) and answer


def test_pipeline_and_the_class_itself(hubs, tmp_path, monkeypatch):
    from paddle_internvl import InternVLChatModel, pipeline

    with pipeline("me/tiny", hub="modelscope", cache_dir=str(tmp_path)) as pipe:
        assert pipe("hello", {"max_new_tokens": 3}).text
    monkeypatch.setenv(hub.VARIABLE, "modelscope")
    model = InternVLChatModel.from_pretrained("me/tiny", cache_dir=str(tmp_path))
    assert tmp_path in model.checkpoint_folder.parents and hubs.names().count("model.safetensors") == 1


@pytest.mark.parametrize("kind", HUBS)
def test_only_safetensors_and_text_are_downloaded(kind, hubs, tmp_path):
    folder = folder_of(NAME, hub=kind, cache_dir=tmp_path)
    assert same_files(folder) and not set(NEVER) & set(hubs.names())
    assert not [name for name in NEVER if (folder / name).exists()]


@pytest.mark.parametrize("kind", HUBS)
def test_a_broken_download_is_resumed(kind, hubs, tmp_path, no_retries):
    hubs.cut["model.safetensors"] = 3 << 20
    with pytest.raises(HubError, match="broke off .*; call again: it goes on from there"):
        folder_of(NAME, hub=kind, cache_dir=tmp_path)
    fetched = hubs.names()
    hubs.transfers.clear()
    assert same_files(folder_of(NAME, hub=kind, cache_dir=tmp_path))
    (byte_range,) = [byte_range for name, byte_range in hubs.transfers if name == "model.safetensors"]
    assert byte_range and (2 << 20) <= int(byte_range.removeprefix("bytes=").strip("-")) <= 3 << 20
    again = [name for name in hubs.names() if name != "model.safetensors" and name in fetched]
    assert again == [], "whole files are not downloaded again"


@pytest.mark.parametrize("kind", HUBS)
def test_a_cached_snapshot_needs_no_network(kind, hubs, tmp_path, monkeypatch, no_retries):
    folder = folder_of(NAME, hub=kind, cache_dir=tmp_path)
    hubs.requests = 0
    assert folder_of(NAME, hub=kind, cache_dir=tmp_path, local_files_only=True) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert folder_of(NAME, hub=kind, cache_dir=tmp_path) == folder and hubs.requests == 0
    with pytest.raises(HubError, match="not whole in the cache of .* forbids to ask"):
        folder_of("me/tiny", hub=kind, cache_dir=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hubs.status = 503
    assert folder_of(NAME, hub=kind, cache_dir=tmp_path) == folder


@pytest.mark.parametrize("kind", HUBS)
def test_small_files_alone_are_no_checkpoint(kind, hubs, tmp_path):
    folder = folder_of(NAME, hub=kind, cache_dir=tmp_path, weights=False)
    assert (folder / "config.json").is_file() and "model.safetensors" not in hubs.names()
    with pytest.raises(HubError, match="not whole in the cache"):
        folder_of(NAME, hub=kind, cache_dir=tmp_path, local_files_only=True)
    assert same_files(folder_of(NAME, hub=kind, cache_dir=tmp_path))


@pytest.mark.parametrize("kind", HUBS)
def test_revisions_are_passed_on(kind, hubs, tmp_path):
    assert same_files(folder_of(NAME, hub=kind, cache_dir=tmp_path, revision=COMMIT))
    with pytest.raises(HubError, match="revision 'v9'"):
        folder_of(NAME, hub=kind, cache_dir=tmp_path, revision="v9")


@pytest.mark.parametrize("kind", HUBS)
def test_tokens_are_passed_on(kind, hubs, tmp_path):
    folder_of(NAME, hub=kind, cache_dir=tmp_path, token="hf_secret", weights=False)
    assert "hf_secret" in str(hubs.headers)


@pytest.mark.parametrize("kind", HUBS)
def test_an_absent_model(kind, hubs, tmp_path):
    with pytest.raises(HubError) as caught:
        folder_of("me/nothing", hub=kind, cache_dir=tmp_path)
    others = [f"{hub.VARIABLE}={other}" for other in HUBS if other != kind]
    words = ["neither a path here nor a model on", hub_clients.HUBS[kind].title, hub_clients.HUBS[kind].token, *others]
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", HUBS)
@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model(kind, status, hubs, tmp_path):
    hubs.status = status
    with pytest.raises(HubError, match=f"ask for access .* set {hub_clients.HUBS[kind].token}"):
        folder_of(NAME, hub=kind, cache_dir=tmp_path)


@pytest.mark.parametrize("kind", ["huggingface", "aistudio"])  # ModelScope's client waits for seconds
def test_an_unreachable_hub(kind, hubs, tmp_path, monkeypatch):
    monkeypatch.setenv(hub_clients.HUBS[kind].endpoint, "http://127.0.0.1:1")
    with pytest.raises(HubError, match="can't be reached at http://127.0.0.1:1 .*efused.* check the network") as caught:
        folder_of(NAME, hub=kind, cache_dir=tmp_path)
    assert ("https://hf-mirror.com" in str(caught.value)) == (kind == "huggingface")
    assert f"{hub.VARIABLE}=modelscope" in str(caught.value)


@pytest.mark.parametrize("kind", HUBS)
def test_a_full_disk(kind, hubs, tmp_path, monkeypatch):
    def full(_request):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(hub.HUBS, kind, dataclasses.replace(hub.HUBS[kind], fetch=full))
    with pytest.raises(HubError, match=f"no space is left .*{hub.HUBS[kind].cache}=FOLDER"):
        folder_of(NAME, hub=kind, cache_dir=tmp_path)


def test_repositories_without_safetensors(hubs, repository, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(repository / "config.json", bare)
    (bare / "pytorch_model.bin").write_text("never")
    hubs.repositories["me/bare"] = bare
    for kind in HUBS:
        with pytest.raises(HubError, match=r"has no model\.safetensors; only safetensors"):
            folder_of("me/bare", hub=kind, cache_dir=tmp_path / kind)


def test_the_shards_of_an_index(hubs, tmp_path):
    from convert.streaming import convert

    convert(BUNDLED, tmp_path / "sharded", to_paddle=True, max_shard_size=2_000_000)
    hubs.repositories["me/sharded"] = tmp_path / "sharded"
    for kind in HUBS:
        folder = folder_of("me/sharded", hub=kind, cache_dir=tmp_path / kind)
        assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
        for shard in folder.glob("*.safetensors"):
            assert shard.read_bytes() == (tmp_path / "sharded" / shard.name).read_bytes()


def test_an_existing_path_is_no_id(tmp_path, monkeypatch, hubs):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me/tiny").mkdir(parents=True)
    assert folder_of("me/tiny") == hub.Path("me/tiny") and folder_of(tmp_path / "me") == tmp_path / "me"
    assert hubs.requests == 0


@pytest.mark.parametrize("name", ["/nowhere", "./me", "a/b/c", "tiny", "../x/y", "~/x", "me/", ".git/x"])
def test_a_missing_path_is_not_looked_up(name, hubs):
    with pytest.raises(HubError, match="does not exist.*; give a folder, or a hub id: owner/name"):
        folder_of(name)
    assert hubs.requests == 0


def test_a_misspelt_path_has_a_suggestion(tmp_path, monkeypatch, hubs):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/InternVL2_5-2B").mkdir(parents=True)
    with pytest.raises(HubError, match=r"did you mean models/InternVL2_5-2B\?"):
        folder_of("models/InternVL2_5-2b", cache_dir=tmp_path)
    with pytest.raises(HubError, match=r"did you mean models/InternVL2_5-2B\?"):
        folder_of("./models/InternVL2_5-2", cache_dir=tmp_path)


def test_the_hub_of_argument_and_environment(monkeypatch):
    monkeypatch.delenv(hub.VARIABLE, raising=False)
    assert hub.choose() == "huggingface"
    monkeypatch.setenv(hub.VARIABLE, "modelscope")
    assert hub.choose() == "modelscope" and hub.choose(from_aistudio=True) == "aistudio"
    assert hub.choose("huggingface", from_aistudio=True) == "huggingface"
    with pytest.raises(ValueError, match="hub='github' is not supported; supported: huggingface, modelscope, aistudio"):
        hub.choose("github")
    monkeypatch.setenv(hub.VARIABLE, "gitee")
    with pytest.raises(ValueError, match="PADDLE_INTERNVL_HUB='gitee' is not supported"):
        hub.choose()
    with pytest.raises(ValueError, match="subfolder='x'"):
        folder_of("me/tiny", subfolder="x")


def test_paddlenlps_own_models_are_left_to_it(hubs, monkeypatch):
    from paddlenlp.transformers import AutoTokenizer

    monkeypatch.setattr("paddlenlp.transformers.auto.tokenizer.get_tokenizer_config", lambda *_, **__: {}["theirs"])
    with pytest.raises(KeyError, match="theirs"):
        AutoTokenizer.from_pretrained("Qwen/Qwen2-0.5B")
    assert hubs.requests == 0


def test_only_the_client_is_silenced(hubs, tmp_path, monkeypatch, caplog, capfd, recwarn):
    fetch = hub.HUBS["huggingface"].fetch

    def fetch_and_log(request):
        logging.getLogger("application").error("still here")
        logging.getLogger("huggingface_hub.file_download").error("silenced")
        print("of another thread", file=sys.stderr)
        warnings.warn("of another module", stacklevel=1)
        return fetch(request)

    monkeypatch.setitem(hub.HUBS, "huggingface", dataclasses.replace(hub.HUBS["huggingface"], fetch=fetch_and_log))
    folder_of(NAME, cache_dir=tmp_path, weights=False)
    assert [record.getMessage() for record in caplog.records] == ["still here"]
    assert capfd.readouterr().err == "of another thread\n"
    assert "of another module" in [str(warning.message) for warning in recwarn]
    assert logging.getLogger("huggingface_hub").level <= logging.WARNING


def test_no_bars_or_logs_in_files(hubs, tmp_path, capfd, no_retries):
    for kind in HUBS:
        hubs.status, hubs.cut["model.safetensors"] = None, 1 << 20
        with pytest.raises(HubError, match="broke off"):
            folder_of(NAME, hub=kind, cache_dir=tmp_path / kind)
        folder_of(NAME, hub=kind, cache_dir=tmp_path / kind)
        hubs.status = 403
        with pytest.raises(HubError):
            folder_of("me/tiny", hub=kind, cache_dir=tmp_path / kind)
    assert capfd.readouterr() == ("", "")


def test_the_clients_default_cache(hubs, tmp_path):
    code = f"from paddle_internvl.checkpoints.hub import folder_of; print(folder_of({NAME!r}))"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "MODELSCOPE_CACHE": str(tmp_path / "ms")}
    for kind, below in (("huggingface", "hf/hub"), ("modelscope", "ms/models")):
        environment[hub.VARIABLE] = kind
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(str(tmp_path / below)) and done.stderr == ""


def test_subcommands_take_ids(hubs, tmp_path, monkeypatch, capsys):
    from demo.tiny.benchmark import write_benchmark
    from paddle_internvl.cli.main import main

    monkeypatch.setenv(hub.VARIABLE, "modelscope")  # the flag is stronger

    def stdout(*words) -> str:
        assert main([*words, "--hub", "huggingface"]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert "InternVLChatModel" in stdout("info", "me/tiny") and "total" in stdout("estimate", "me/tiny")
    assert "model.safetensors" not in hubs.names()
    folder = hub.Path(stdout("download", "me/tiny").strip())
    assert same_files(folder) and tmp_path in folder.parents
    ask = ("--question", "hello", "--max-new-tokens", "4")
    assert stdout("chat", "me/tiny", *ask) == stdout("chat", str(BUNDLED), *ask)
    assert "nothing" in stdout("verify", "me/tiny", str(BUNDLED), "--max-new-tokens", "2")
    (tmp_path / "in").write_text('{"prompt": "hello", "generation": {"max_new_tokens": 2}}')
    assert "0 failed" in stdout("batch", str(tmp_path / "in"), str(tmp_path / "out"), "me/tiny", "--workers", "0")
    write_benchmark(tmp_path / "Tiny_DEV.tsv", 1)
    data = ("--data", f"Tiny_DEV={tmp_path / 'Tiny_DEV.tsv'}", "--work-dir", str(tmp_path))
    assert "Tiny_DEV" in stdout("eval", "run", "me/tiny", *data, "--limit", "1", "--mode", "infer")
    assert hubs.names().count("model.safetensors") == 1
    assert main(["download", "me/nothing"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: me/nothing is neither a path here") and error.count("\n") == 1


def test_servers_take_ids(hubs, tmp_path):
    from paddle_internvl.serve import server
    from paddle_internvl.serve.settings import Settings

    engine = server.load_engine("me/tiny", Settings()).engine
    assert tmp_path in engine.model.checkpoint_folder.parents and server.model_name("me/tiny") == "tiny"
