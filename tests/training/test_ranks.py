"""Training on several ranks: each stage of sharding on two ranks is accumulation of two on one; a run goes on with
another stage, and on one rank after kill -9."""

import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddle_internvl.training import checkpoint_folders
from tests.training.ranks import run, run_mpo, start_ranks


def metrics(output) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def require_equal_preferences(output, expected):
    """Metrics of two ranks with a pair each, and of one rank with batches of two."""
    for line, single in zip(metrics(output), metrics(expected), strict=True):
        assert line.pop("seconds") > 0 and single.pop("seconds") > 0
        assert line == pytest.approx(single, rel=1e-5, abs=1e-5)
    stored, alone = ((folder / "reference.jsonl").read_text().splitlines() for folder in (output, expected))
    for line, single in zip(sorted(map(json.loads, stored[1:]), key=str), sorted(map(json.loads, alone[1:]), key=str)):
        assert line["index"] == single["index"] and line["log_probs"] == pytest.approx(single["log_probs"], rel=1e-6)
    assert len(stored) == len(alone) == 5


def require_equal_metrics(output, expected, first_step=1):
    for line, single in zip(metrics(output), metrics(expected)[first_step - 1 :], strict=True):
        counts = ("step", "epoch", "learning_rate", "tokens", "learnt_tokens", "tiles")
        assert [line[name] for name in counts] == [single[name] for name in counts]
        assert line["loss"] == pytest.approx(single["loss"], rel=1e-6)
        assert line["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-5)
        for name in ("eval_loss", "eval_tokens"):  # at the last step
            assert line.get(name, 0) == pytest.approx(single.get(name, 0), rel=1e-6)


def require_equal_weights(output, expected):
    trained, single = (load_file(folder / "model.safetensors") for folder in (output, expected))
    assert trained.keys() == single.keys()
    for name, value in single.items():
        np.testing.assert_allclose(trained[name], value, rtol=0, atol=3e-5, err_msg=name)  # of changes up to 2e-3


def test_sharded_ranks_train_as_one_rank_and_a_killed_run_goes_on_with_one(tmp_path):
    ranks = start_ranks(tmp_path / "ranks")
    run(tmp_path / "one", gradient_accumulation_steps=4)
    run_mpo(tmp_path / "one/mpo", tmp_path / "pairs", per_device_train_batch_size=2)
    ranks[0].wait(timeout=300)
    ranks[1].kill()  # waits for rank 0 at a barrier, which a launcher would end
    errors = [rank.communicate()[1] for rank in ranks]
    assert ranks[0].returncode == -signal.SIGKILL, errors[0][-2000:]
    require_equal_preferences(tmp_path / "ranks/mpo", tmp_path / "one/mpo")
    require_equal_metrics(tmp_path / "ranks/stage2", tmp_path / "one")
    require_equal_weights(tmp_path / "ranks/stage2", tmp_path / "one")
    require_equal_metrics(tmp_path / "ranks/stage1", tmp_path / "one", first_step=3)
    require_equal_weights(tmp_path / "ranks/stage1", tmp_path / "one")
    require_equal_metrics(tmp_path / "ranks", tmp_path / "one")
    assert list(checkpoint_folders.checkpoints(tmp_path / "ranks")) == [2, 4]
    assert checkpoint_folders.newest(tmp_path / "ranks").name == "checkpoint-2"
    assert len(list((tmp_path / "ranks/checkpoint-2").glob("optimizer-*.safetensors"))) == 2
    run(tmp_path / "ranks", gradient_accumulation_steps=4)
    require_equal_metrics(tmp_path / "ranks", tmp_path / "one")
    require_equal_weights(tmp_path / "ranks", tmp_path / "one")
