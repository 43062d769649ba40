"""`--adapter`: chat, batch, eval and serve answer with a LoRA adapter as the merged model does."""

import itertools
import json

import pytest

from demo.tiny.benchmark import write_benchmark
from paddle_internvl import AutoModel
from paddle_internvl.cli.main import main
from paddle_internvl.evaluation import BENCHMARKS
from paddle_internvl.evaluation.readers import read_items
from paddle_internvl.serve import server
from paddle_internvl.serve.settings import Settings
from paddle_internvl.training.lora import add_lora
from paddle_internvl.training.lora_folders import save_adapter
from tests.training.goldens import CHECKPOINT
from tests.training.test_lora import fill, load

QUESTION, LENGTH = "yes?", 6


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder that does not name its base model."""
    folder = tmp_path_factory.mktemp("adapter")
    model = add_lora(load(), use_llm_lora=4)
    fill(model)
    save_adapter(model, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    return folder


@pytest.fixture(scope="module")
def answer(adapter):
    """The answer of the merged model, which is not the base model's."""
    texts = [
        AutoModel.from_pretrained(str(CHECKPOINT), adapter=folder)
        .chat_messages([{"role": "user", "content": QUESTION}], {"max_new_tokens": LENGTH})
        .text
        for folder in (adapter, None)
    ]
    assert texts[0] != texts[1]
    return texts[0]


def test_chat(adapter, answer, capsys):
    words = ["--adapter", str(adapter), "--question", QUESTION, "--max-new-tokens", str(LENGTH), "--json"]
    assert main(["chat", str(CHECKPOINT), *words]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answer


def test_batch_and_its_fingerprint(adapter, answer, tmp_path, capsys):
    """OUT of the base model is not gone on with."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": QUESTION}) + "\n")
    words = ["batch", str(source), str(target), str(CHECKPOINT), "--workers", "0", "--max-new-tokens", str(LENGTH)]
    texts = []
    for more in ([], ["--adapter", str(adapter)]):
        assert main([*words, *more]) == 0
        texts.append(json.loads(target.read_text())["text"])
    assert texts[1] == answer != texts[0]


def test_eval_run_and_its_fingerprint(adapter, tmp_path, capsys):
    """Answers are those of the adapter, and a run of the base model is not gone on with."""
    data = tmp_path / "Tiny_DEV.tsv"
    write_benchmark(data, per_kind=1)
    words = ["eval", "run", str(CHECKPOINT), "--data", f"Tiny_DEV={data}", "--limit", "1", "--work-dir", str(tmp_path)]
    words += ["--max-new-tokens", str(LENGTH), "--mode", "infer"]
    assert main([*words, "--adapter", str(adapter)]) == 0
    (row,) = (tmp_path / CHECKPOINT.name / f"{CHECKPOINT.name}_Tiny_DEV.jsonl").read_text().splitlines()
    (item,) = itertools.islice(read_items(BENCHMARKS["Tiny_DEV"], data), 1)
    picture, text = {"type": "image", "image": str(item.pictures[0])}, {"type": "text", "text": item.question}
    alone = AutoModel.from_pretrained(str(CHECKPOINT), adapter=adapter)
    expected = alone.chat_messages([{"role": "user", "content": [picture, text]}], {"max_new_tokens": LENGTH}).text
    assert json.loads(row)["answer"] == expected
    assert main(words) == 2 and "is of a run with another model" in capsys.readouterr().err


def test_the_server_s_model(adapter, answer):
    model = server.load_model(str(CHECKPOINT), Settings(adapter=str(adapter)))
    messages = [{"role": "user", "content": QUESTION}]
    assert model.chat_messages(messages, {"max_new_tokens": LENGTH}).text == answer


def test_the_demo_s_adapters(adapter, answer, monkeypatch):
    """Each name has the model of its folder; "" has the one without an adapter."""
    pytest.importorskip("gradio")
    hosts = []
    monkeypatch.setattr("paddle_internvl.webdemo.launching.prepare", lambda host, *_: hosts.append(host))
    monkeypatch.setattr("paddle_internvl.webdemo.launching.launch", lambda *_, **__: None)
    monkeypatch.setattr("paddle_internvl.webdemo.launching.check_port", lambda *_: None)
    assert main(["demo", str(CHECKPOINT), "--session-len", "512", "--adapters", f"mine={adapter}"]) == 0
    messages, options = [{"role": "user", "content": QUESTION}], {"max_new_tokens": LENGTH}
    models = [hosts[0].engine_of(name).engine.model for name in ("mine", "")]
    hosts[0].close()
    texts = [model.chat_messages(messages, options).text for model in models]
    assert texts[0] == answer != texts[1] and hosts[0].adapters == ("mine",)
    assert main(["demo", str(CHECKPOINT), "--adapters", str(adapter), str(adapter)]) == 2


@pytest.mark.parametrize("command", [["chat"], ["serve"], ["batch", "in", "out"], ["eval", "run"]])
def test_a_folder_that_is_no_adapter(command, capsys):
    data = ["--data", "MMStar=/nowhere"] if command[0] == "eval" else []
    assert main([*command, str(CHECKPOINT), *data, "--adapter", str(CHECKPOINT)]) == 2
    assert "is no LoRA adapter: it has neither adapter_config.json nor lora_config.json" in capsys.readouterr().err
