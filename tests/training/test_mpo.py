"""`train(method="mpo")`: the steps of upstream's run, reference models, resuming, held-out pairs."""

import json

import numpy as np
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.training import train
from tests.training.goldens import CHECKPOINT, golden, upstream_tensors
from tests.training.preference_pairs import EXPECTED, golden_items, pairs_of

STEPS = EXPECTED["steps"]
CONFIG = {
    "max_steps": 6, "per_device_train_batch_size": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "weight_decay": 0.05, "decay_rule": "hf", "max_grad_norm": 1.0, "shuffle": False, "device": "cpu",
    "save_strategy": "no",
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return list(pairs_of(tmp_path_factory.mktemp("pairs"), golden_items()))


def load():
    return AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)


def run(output, pairs, **changes):
    """The trained model, and the lines of metrics.jsonl."""
    model = train({**CONFIG, **changes, "output_dir": str(output)}, model=load(), dataset=pairs, method="mpo")
    return model, [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def values(model) -> dict[str, np.ndarray]:
    return {name: p.numpy() for name, p in model.named_parameters()}


def test_steps_are_those_of_upstreams_trainer(pairs, tmp_path):
    model, lines = run(tmp_path, pairs)
    for number, (line, step) in enumerate(zip(lines, STEPS[:6], strict=True)):
        first = number == 0
        assert line["loss"] == pytest.approx(step["loss"], rel=2e-6 if first else 5e-5)
        assert line["grad_norm"] == pytest.approx(step["grad_norm_before_clip"], rel=1e-4)
        for name in ("logps/chosen", "logps/rejected"):
            assert line[name] == pytest.approx(step[name], rel=2e-6 if first else 2e-5)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
            assert line[name] == pytest.approx(step[name], abs=5e-4)
        assert line["delta"] == pytest.approx(step["bco/delta_running_mean"], abs=5e-4)
        assert line["rewards/accuracies"] == step["rewards/accuracies"]
        assert line["tiles"] == step["shapes"]["tiles"]
    initial, final = (upstream_tensors(values(m)) for m in (load(), model))
    for name, change in EXPECTED["change_norms"].items():
        assert np.linalg.norm(final[name] - initial[name]) == pytest.approx(change, rel=2e-3), name
