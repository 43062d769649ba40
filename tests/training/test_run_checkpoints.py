"""Checkpoints of a run: a resumed run is the uninterrupted one bit for bit, after kills and signals."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from safetensors.numpy import load_file

from paddle_internvl.training import checkpoint_folders, train
from paddle_internvl.training.optimizer_state import SavedState, write_state
from paddle_internvl.training.trainer_arguments import require_supported
from tests.training.goldens import CHECKPOINT
from tests.training.loop import run_samples

CONFIG = {
    "max_steps": 5, "save_steps": 2, "save_total_limit": 2, "per_device_train_batch_size": 1, "device": "cpu",
    "gradient_accumulation_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2,
    "freeze_llm": True, "use_llm_lora": 2, "lora_dropout": 0.2, "drop_path_rate": 0.3, "freeze_backbone": True,
}  # fmt: skip


class KilledError(Exception):
    """Stands for kill -9."""


class Samples:
    """Samples of the golden runs that are short; an action is called before the n-th is drawn."""

    def __init__(self, at: int = -1, action=None):
        self.samples = sorted(run_samples(), key=lambda sample: len(sample["input_ids"]))[:5]
        self.countdown, self.action = at, action

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.countdown -= 1
        if self.countdown == 0:
            self.action()
        return self.samples[index]


def kill():
    raise KilledError


def run(output: Path, samples=None, **changes):
    """Final weights of the trained parameters, and the metrics."""
    model = AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)
    train({**CONFIG, **changes, "output_dir": str(output)}, model=model, dataset=samples or Samples())
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {name: p.numpy() for name, p in model.named_parameters() if not p.stop_gradient}, lines


def require_equal_runs(got, expected):
    assert got[0].keys() == expected[0].keys() and all((got[0][n] == expected[0][n]).all() for n in got[0])
    assert [{**line, "seconds": 0} for line in got[1]] == [{**line, "seconds": 0} for line in expected[1]]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """OUTPUT, weights and metrics of an uninterrupted run."""
    output = tmp_path_factory.mktemp("straight")
    return output, *run(output)


def test_old_checkpoints_are_deleted_and_each_is_a_model(straight):
    output, weights, lines = straight
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[2]["epoch"] == pytest.approx(3 * 2 / 5)
    assert list(checkpoint_folders.checkpoints(output)) == [2, 4]
    assert checkpoint_folders.newest(output).name == "checkpoint-4"
    assert (output / "checkpoint-4/adapter_config.json").is_file()
    assert any(np.abs(value).sum() > 0 for name, value in weights.items() if name.endswith("lora_B"))


def test_a_killed_run_is_found_and_goes_on_bit_for_bit(straight, tmp_path, monkeypatch):
    with pytest.raises(KilledError):
        run(tmp_path, Samples(7, kill))  # during step 4
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_folders, "write_mark", lambda *_arguments: kill())  # while checkpoint-4 is saved
        with pytest.raises(KilledError):
            run(tmp_path)
    assert list(checkpoint_folders.checkpoints(tmp_path)) == [2, 4]
    assert checkpoint_folders.newest(tmp_path).name == "checkpoint-2"
    require_equal_runs(run(tmp_path), straight[1:])
    with pytest.raises(KilledError):  # nothing is drawn after the last step
        run(tmp_path, Samples(1, kill))
    require_equal_runs(run(tmp_path, max_steps=5, save_steps=1), straight[1:])
    require_equal_runs(run(tmp_path, Samples(1, kill)), straight[1:])  # checkpoint-5: no step is left


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_and_leave(straight, tmp_path, capsys, number, error):
    outside = signal.signal(
        number, signal.default_int_handler
    )  # shells start jobs in the background with SIGINT ignored
    try:
        with pytest.raises(error):
            run(tmp_path, Samples(5, lambda: os.kill(os.getpid(), number)), save_strategy="no")  # during step 3
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, outside)
    assert f"stopped after step 3; the same command continues from {tmp_path}/checkpoint-3" in capsys.readouterr().err
    assert list(checkpoint_folders.checkpoints(tmp_path)) == [3] and not (tmp_path / "adapter_config.json").exists()
    require_equal_runs(run(tmp_path), straight[1:])


def test_faults_of_resuming(straight, tmp_path):
    output = straight[0]
    with pytest.raises(ValueError, match="checkpoint-4 is of a run with learning_rate=0.001, this run has 0.01; give"):
        run(output, learning_rate=0.01)
    with pytest.raises(ValueError, match="checkpoint-4 is of an earlier run; overwrite_output_dir True deletes it"):
        run(output, resume_from_checkpoint=False)
    with pytest.raises(ValueError, match="nowhere holds no whole checkpoint"):
        run(tmp_path, resume_from_checkpoint=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="differ in what is trained, e.g. in mlp1"):
        run(tmp_path, resume_from_checkpoint=str(output / "checkpoint-4"), freeze_mlp=True)


def test_bfloat16_parameters_have_float32_masters_and_moments(straight, tmp_path):
    """The state of a float32 run in bfloat16 parameters: nothing is rounded but the parameters."""
    (saved,) = (straight[0] / "checkpoint-4").glob("optimizer-*.safetensors")
    arrays = load_file(saved)
    weights = {key.removesuffix("/weight"): value for key, value in arrays.items() if key.endswith("/weight")}
    zeros = paddle.nn.initializer.Constant(0.0)
    parameters = {
        n: paddle.create_parameter(w.shape, "bfloat16", default_initializer=zeros) for n, w in weights.items()
    }
    names = {p.name: name for name, p in parameters.items()}
    adamw = paddle.optimizer.AdamW(parameters=list(parameters.values()), multi_precision=True)
    with SavedState([saved]) as state:
        state.load_parameters(parameters)
        state.load_optimizer(adamw, names)
    for name, parameter in parameters.items():
        assert parameter.dtype == paddle.bfloat16
        rounded = paddle.to_tensor(weights[name]).astype("bfloat16").astype("float32")
        assert (parameter.astype("float32") == rounded).all()
    state = adamw.state_dict()
    assert {str(tensor.dtype) for tensor in state.pop("master_weights").values()} == {"paddle.float32"}
    assert {str(tensor.dtype) for tensor in state.values() if hasattr(tensor, "dtype")} == {"paddle.float32"}
    write_state(tmp_path / "again.safetensors", adamw, names)
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == arrays.keys() and all((again[key] == arrays[key]).all() for key in arrays)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"sharding": "stage3 offload"}, "sharding='stage3 offload'; supported: stage1, stage2, stage3"),
        ({"tensor_parallel_degree": 2}, "tensor_parallel_degree=2: training runs data parallel"),
        ({"save_strategy": "epoch"}, "save_strategy='epoch' is not supported"),
        ({"output_dir": None}, "output_dir is needed"),
        ({"fp16": True}, "fp16 is not supported; give bf16 True"),
    ],
)
def test_arguments_that_training_does_not_support(arguments, error):
    with pytest.raises(ValueError, match=error):
        require_supported({"output_dir": "out", **arguments}, ranks=2)
    require_supported({"output_dir": "out", "sharding": "stage3 offload"}, ranks=1)
