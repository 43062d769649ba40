"""Training on several ranks: sharding on two ranks is accumulation of two on one, and goes on there after kill -9."""

import json
import signal

import numpy as np
import pytest

from paddle_internvl.training import checkpoint_folders
from tests.training.ranks import run, start_ranks


def metrics(output) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def require_equal_metrics(output, expected):
    for line, single in zip(metrics(output), metrics(expected), strict=True):
        counts = ("step", "epoch", "learning_rate", "tokens", "learnt_tokens", "tiles")
        assert [line[name] for name in counts] == [single[name] for name in counts]
        assert line["loss"] == pytest.approx(single["loss"], rel=1e-6)
        assert line["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-5)


def test_sharded_ranks_train_as_one_rank_and_a_killed_run_goes_on_with_one(tmp_path):
    ranks = start_ranks(tmp_path / "ranks")
    expected = run(tmp_path / "one", gradient_accumulation_steps=4)
    ranks[0].wait(timeout=300)
    ranks[1].kill()  # waits for rank 0 at a barrier, which a launcher would end
    errors = [rank.communicate()[1] for rank in ranks]
    assert ranks[0].returncode == -signal.SIGKILL, errors[0][-2000:]
    require_equal_metrics(tmp_path / "ranks", tmp_path / "one")
    assert list(checkpoint_folders.checkpoints(tmp_path / "ranks")) == [2, 4]
    assert checkpoint_folders.newest(tmp_path / "ranks").name == "checkpoint-2"
    assert len(list((tmp_path / "ranks/checkpoint-2").glob("optimizer-*.safetensors"))) == 2
    resumed = run(tmp_path / "ranks", gradient_accumulation_steps=4)
    require_equal_metrics(tmp_path / "ranks", tmp_path / "one")
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, rtol=0, atol=1e-5, err_msg=name)
