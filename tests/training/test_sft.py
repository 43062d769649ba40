"""SFT on PaddleNLP's Trainer: the steps of upstream's Trainer, the plain loop's weights, and what OUTPUT holds."""

import json
import shutil

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from convert.streaming import convert
from paddle_internvl.cli.main import main
from paddle_internvl.training import train
from paddle_internvl.training.recipe import Recipe
from tests.training.goldens import CHECKPOINT, FOLDER, golden
from tests.training.loop import run_samples

NAME = "full_one_group_internlm2"


@pytest.fixture(scope="module")
def config():
    """Arguments of the golden run."""
    settings = golden(f"sft_run/{NAME}")["settings"]
    shared = ("max_steps", "gradient_accumulation_steps", "learning_rate", "weight_decay", "warmup_ratio")
    return {name: settings[name] for name in shared} | {
        "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine", "max_grad_norm": 1.0, "shuffle": False,
        "freeze_backbone": True, "decay_rule": "all", "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def output(config, tmp_path_factory):
    """OUTPUT of `paddle-internvl train` with the golden run's arguments."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(FOLDER / "sft_run", folder / "data")
    meta = json.loads((folder / "data/meta.json").read_text())
    meta["train"]["root"] = str(FOLDER / "media")
    (folder / "data/meta.json").write_text(json.dumps(meta))
    data = {"meta_path": str(folder / "data/meta.json"), "max_seq_length": 1024, "max_dynamic_patch": 4}
    (folder / "run.json").write_text(json.dumps({**config, **data, "output_dir": "nowhere"}))
    words = ["--output_dir", str(folder / "out"), "--model_name_or_path", str(CHECKPOINT), "--use_thumbnail", "True"]
    assert main(["train", str(folder / "run.json"), *words]) == 0
    return folder / "out"


def test_steps_are_those_of_upstreams_trainer(output):
    expected = golden(f"sft_run/{NAME}")["steps"]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    for line, step in zip(lines, expected):
        assert line["learning_rate"] == pytest.approx(step["lr"], rel=1e-12)
        assert line["loss"] == pytest.approx(step["loss"], rel=5e-6)
        assert line["grad_norm"] == pytest.approx(step["grad_norm_before_clip"], rel=2e-5)
    assert lines[0]["learning_rate"] == 0 and lines[5]["epoch"] == pytest.approx(1.0)
    samples = run_samples()[:4]
    assert lines[0]["tokens"] == sum(len(sample["input_ids"]) for sample in samples)
    assert lines[0]["learnt_tokens"] == sum(int((sample["labels"][1:] != -100).sum()) for sample in samples)
    assert lines[0]["tiles"] == sum(len(sample["image_flags"]) for sample in samples)


def test_output_is_a_checkpoint(output):
    changes = golden(f"sft_run/{NAME}")["change_norms"]
    model, initial = AutoModel.from_pretrained(str(output)), AutoModel.from_pretrained(str(CHECKPOINT))
    projector, before = model.mlp1.state_dict(), initial.mlp1.state_dict()
    for name in ("mlp1.0.weight", "mlp1.1.bias"):
        key = name.removeprefix("mlp1.")
        change = np.linalg.norm(projector[key].numpy() - before[key].numpy())
        assert change == pytest.approx(changes[name], rel=1e-3)
    frozen, tower = model.vision_model.state_dict(), initial.vision_model.state_dict()
    assert all((frozen[name].astype("float32") == tower[name].astype("float32")).all() for name in tower)


def test_output_comes_back_byte_by_byte_from_the_hugging_face_layout(output, tmp_path):
    convert(output, tmp_path / "hf", to_paddle=False)
    convert(tmp_path / "hf", tmp_path / "back", to_paddle=True)
    for name in ("model.safetensors", "config.json"):
        assert (output / name).read_bytes() == (tmp_path / "back" / name).read_bytes(), name
    assert '"None"' not in (output / "config.json").read_text()  # transformers looks for torch's attribute of that name


@pytest.mark.torch
def test_transformers_gives_output_the_same_logits(output, tmp_path):
    import torch
    from transformers import InternVLForConditionalGeneration

    convert(output, tmp_path / "native", to_paddle=False, layout="transformers")
    theirs = InternVLForConditionalGeneration.from_pretrained(tmp_path / "native").eval()
    ours = AutoModel.from_pretrained(str(output))
    sample = run_samples()[0]
    inputs = {"input_ids": sample["input_ids"][None], "pixel_values": sample["pixel_values"]}
    with torch.no_grad(), paddle.no_grad():
        expected = theirs(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits.numpy()
        logits = ours(**{name: paddle.to_tensor(value) for name, value in inputs.items()}).logits.numpy()
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 2e-5


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    model.mlp1[1].bias.set_value(paddle.full_like(model.mlp1[1].bias, float("nan")))
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; batch: train line 1, train line 2"):
        train({**config, "output_dir": str(tmp_path)}, model=model, dataset=run_samples())
    assert not (tmp_path / "config.json").exists()


def test_faults_of_arguments(config, tmp_path, capsys):
    with pytest.raises(ValueError, match="'learning_rates' is no training argument"):
        Recipe.from_dict({**config, "learning_rates": 1})
    with pytest.raises(ValueError, match="decay_rule='none'; supported: all, hf"):
        Recipe.from_dict({**config, "decay_rule": "none"})
    with pytest.raises(ValueError, match="dtype='float16'; supported: bfloat16, float32"):
        Recipe.from_dict({**config, "dtype": "float16"})
    (tmp_path / "run.json").write_text("{}")
    assert main(["train", str(tmp_path / "run.json"), "--meta_path", "m.json"]) == 2
    assert "model_name_or_path is missing" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "run.json"), "--shuffle"]) == 2
    assert "--shuffle: arguments are given as --KEY VALUE" in capsys.readouterr().err


def test_output_of_a_lora_run_is_the_adapter(config, tmp_path):
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    before = {name: p.numpy() for name, p in model.named_parameters()}
    lora = {"use_llm_lora": 4, "freeze_llm": True, "freeze_mlp": True, "max_steps": 2, "warmup_ratio": 0.0}
    train({**config, **lora, "output_dir": str(tmp_path)}, model=model, dataset=run_samples())
    assert (tmp_path / "adapter_config.json").is_file() and not list(tmp_path.glob("model*.safetensors"))
    after = dict(model.named_parameters())
    assert all((after[name].numpy() == value).all() for name, value in before.items() if name in after)
    assert any(name.endswith("lora_B") and after[name].abs().sum() > 0 for name in after)
    assert main(["merge-lora", str(tmp_path), str(tmp_path / "merged")]) == 0
    with_adapter, merged = (AutoModel.from_pretrained(str(f)) for f in (tmp_path, tmp_path / "merged"))
    ids = paddle.to_tensor([run_samples()[1]["input_ids"][:40].tolist()])
    expected, got = with_adapter.language_model(input_ids=ids), merged.language_model(input_ids=ids)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=0, atol=1e-5)
