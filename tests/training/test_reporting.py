"""What a run shows: progress bar, VisualDL, plot, summary; and its errors for numbers and memory."""

import json
import sys
from types import ModuleType

import pytest
from paddlenlp.transformers import AutoModel
from PIL import Image

from paddle_internvl.training import sft, train
from paddle_internvl.training.memory_advice import StepSizes, memory_advice
from paddle_internvl.training.reporting import postfix, reporters, summary
from tests.training.goldens import CHECKPOINT
from tests.training.loop import run_samples

CONFIG = {
    "max_steps": 2, "per_device_train_batch_size": 2, "device": "cpu", "learning_rate": 1e-4, "freeze_llm": True,
    "freeze_backbone": True, "shuffle": False, "save_strategy": "no",
}  # fmt: skip
LINE = {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 0.0, "grad_norm": 1.0, "tokens": 300,
        "learnt_tokens": 100, "tiles": 12, "seconds": 2.0}  # fmt: skip


def run(output, **changes):
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    samples = sorted(run_samples(), key=lambda sample: len(sample["input_ids"]))[:4]
    train({**CONFIG, **changes, "output_dir": str(output)}, model=model, dataset=samples)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_visualdl_and_plot(tmp_path, monkeypatch):
    written = []

    class LogWriter:
        def __init__(self, logdir):
            assert logdir.startswith(str(tmp_path))

        def add_scalar(self, tag, value, step):
            written.append((tag, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "visualdl", ModuleType("visualdl"))
    sys.modules["visualdl"].LogWriter = LogWriter
    sys.modules["visualdl"].__spec__ = "installed"
    lines = run(tmp_path, report_to="visualdl", plot=str(tmp_path / "loss.png"))
    for line in lines:
        assert ("train/loss", line["loss"], line["step"]) in written
        assert ("train/tokens_per_second", line["tokens"] / line["seconds"], line["step"]) in written
    assert written[-1] == "closed"
    assert Image.open(tmp_path / "loss.png").size[0] > 300


def test_reporters_and_plots_that_can_t_be_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert reporters(None) == reporters("none") == [] and reporters(["visualdl", "none"]) == ["visualdl"]
    with pytest.raises(ValueError, match="report_to='wandb'; supported: visualdl, tensorboard, none"):
        reporters("wandb")
    with pytest.raises(ValueError, match="'tensorboard' needs tensorboardX; pip install tensorboardX"):
        run(tmp_path, report_to="tensorboard")
    with pytest.raises(ValueError, match=r"loss.txt has the ending of no plot; use .*png"):
        run(tmp_path, plot=str(tmp_path / "loss.txt"))


def test_bar_and_summary_by_hand():
    assert postfix(LINE) == {"loss": "2.5000", "tokens/s": "150", "tiles/s": "6.0"}
    assert summary([LINE, {**LINE, "step": 2, "epoch": 1.0, "loss": 2.25, "seconds": 61.0}]) == (
        "2 steps, 1.00 epochs, 1 min 3 s; loss 2.5000 -> 2.2500; 600 tokens (10/s), 200 of them learnt, 24 tiles "
        "(0.4/s)"
    )


def test_a_gradient_that_is_not_finite_names_the_batches_of_the_step(tmp_path, monkeypatch):
    def poisoned(model, batch, *options):
        zeros = model.mlp1[1].bias * 0
        return sft_loss(model, batch, *options) + zeros.sqrt().sum()  # finite; the gradient is infinity times 0

    sft_loss = sft.sft_loss
    monkeypatch.setattr(sft, "sft_loss", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 1: the gradient norm is nan; batch: train line \d+, train"):
        run(tmp_path)


def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("ResourceExhaustedError: Fail to alloc memory of 34359738368 size.")

    monkeypatch.setattr(sft, "sft_loss", fail)
    with pytest.raises(MemoryError) as error:
        run(tmp_path, gradient_accumulation_steps=3)
    message = str(error.value)
    assert message.startswith("out of memory in step 1 with 2 rows of ")
    assert "per_device_train_batch_size 1 instead of 2, with gradient_accumulation_steps 6 instead of 3" in message
    assert "recompute True" in message and "34359738368" in message


@pytest.mark.parametrize(
    "sizes, advice",
    [
        (StepSizes(rows=6, tokens=10, tiles=6, accumulation=1), "per_device_train_batch_size 3 instead of 6"),
        (StepSizes(rows=5, tokens=10, tiles=5, accumulation=2), "per_device_train_batch_size 2 instead of 5"),
        (StepSizes(rows=1, tokens=10, tiles=1, trained=10**9, ranks=4), "sharding stage1 (6.0 GB less on each of 4"),
        (
            StepSizes(rows=1, tokens=10, tiles=1, trained=10**9, ranks=4, low_precision=True),
            "sharding stage1 (9.0 GB less on each of 4",
        ),
        (
            StepSizes(rows=1, tokens=10, tiles=1, trained=10**9, ranks=4, sharding=1),
            "sharding stage3 (gradients and weights are sharded too; slower); LoRA (use_llm_lora 16, freeze_llm True: "
            "up to 6.0 GB less",
        ),
        (StepSizes(rows=1, tokens=10, tiles=1, trained=10**9), "use_llm_lora 16, freeze_llm True: up to 12.0 GB less"),
        (StepSizes(rows=1, tokens=8192, tiles=40, packed=True), "max_packed_tokens 4096 and num_images_expected 20"),
        (StepSizes(rows=1, tokens=4096, tiles=13), "max_dynamic_patch 6 instead of 12; max_seq_length 2048"),
    ],
)
def test_advice_by_sizes(sizes, advice):
    assert advice in "; ".join(memory_advice(sizes))


def test_advice_leaves_out_what_is_done():
    sizes = StepSizes(rows=1, tokens=100, tiles=1, ranks=8, sharding=3, recompute=True, adapters=True)
    assert [line.split()[0] for line in memory_advice(sizes)] == ["max_seq_length"]
