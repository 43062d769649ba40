"""MPO and the other preference losses: upstream's values on stored log-probabilities, and formulas in numpy."""

import numpy as np
import paddle
import pytest

from paddle_internvl.training import mpo_loss, preference_losses
from paddle_internvl.training.arguments import PreferenceArguments
from paddle_internvl.training.preference_losses import PairLogProbs, preference_loss, updated_running_mean
from tests.training.goldens import golden

STEPS = golden("mpo/internlm2_batch1")["steps"]


def test_mpo_losses_are_upstream_s():
    running_mean = (0.0, 0)
    for number, step in enumerate(STEPS):
        names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
        log_probs = [paddle.to_tensor(step[f"logps/{name}"]) for name in names]
        loss, metrics, running_mean = mpo_loss(*log_probs, paddle.to_tensor(step["losses/sft"]), running_mean)
        assert float(loss) == pytest.approx(step["loss"], rel=2e-6)
        assert metrics["loss/preference"] == pytest.approx(step["losses/dpo"][0], abs=1e-5)
        assert metrics["loss/quality"] == pytest.approx(step["losses/bco"][0], abs=1e-5)
        assert metrics["loss/generation"] == pytest.approx(step["losses/sft"])
        assert metrics["delta"] == pytest.approx(step["bco/delta_running_mean"], abs=1e-5)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
            assert metrics[name] == pytest.approx(step[name], abs=1e-5), name
        assert metrics["rewards/accuracies"] == step["rewards/accuracies"]
        assert running_mean == (metrics["delta"], number + 1)


def test_mpo_gradients_reach_the_policy_alone():
    policy, reference = ([paddle.to_tensor([v, v - 1], stop_gradient=False) for v in (-3.0, -4.0)] for _ in range(2))
    nll = paddle.to_tensor(2.0, stop_gradient=False)
    loss, _, _ = mpo_loss(*policy, *[value.detach() for value in reference], nll, weights=(1.0, 0.0, 0.5))
    loss.backward()
    # at policy = reference: d/dx -log sigmoid(x) = -1/2, times beta, mean of two pairs
    np.testing.assert_allclose(policy[0].grad.numpy(), [-0.025, -0.025], rtol=1e-6)
    np.testing.assert_allclose(policy[1].grad.numpy(), [0.025, 0.025], rtol=1e-6)
    assert float(nll.grad) == 0.5


LOG_PROBS = {
    "policy_chosen": [-30.0, -41.0, -20.5], "policy_rejected": [-33.0, -25.0, -20.0],
    "reference_chosen": [-31.0, -36.0, -21.0], "reference_rejected": [-32.0, -30.0, -20.25],
    "chosen_tokens": [10.0, 12.0, 5.0], "rejected_tokens": [11.0, 8.0, 6.0],
}  # fmt: skip


def by_hand(name: str, beta: float, smoothing: float = 0.0, reference_free: bool = False) -> float:
    """Mean of a loss in float64, from the formulas of the papers."""
    pc, pr, rc, rr, nc, nr = (np.array(LOG_PROBS[field]) for field in LOG_PROBS)
    if reference_free:
        rc = rr = 0.0
    if name == "ipo":
        pc, rc, pr, rr = pc / nc, rc / nc, pr / nr, rr / nr
    h = (pc - rc) - (pr - rr)
    p = 1 / (1 + np.exp(-beta * h))  # probability that chosen is better
    if name == "bco_pair":
        chosen, rejected = beta * (pc - rc), beta * (pr - rr)
        delta = np.concatenate([chosen, rejected]).mean()
        return np.mean(np.log1p(np.exp(delta - chosen)) + np.log1p(np.exp(rejected - delta)))
    losses = {
        "sigmoid": -(1 - smoothing) * np.log(p) - smoothing * np.log(1 - p),
        "robust": (-(1 - smoothing) * np.log(p) + smoothing * np.log(1 - p)) / (1 - 2 * smoothing),
        "hinge": np.maximum(0, 1 - beta * h),
        "ipo": (h - 1 / (2 * beta)) ** 2,
    }
    return losses[name].mean()


@pytest.mark.parametrize(
    "name, options",
    [
        ("sigmoid", {}), ("sigmoid", {"label_smoothing": 0.2}), ("sigmoid", {"reference_free": True}), ("hinge", {}),
        ("hinge", {"reference_free": True}), ("ipo", {}), ("robust", {"label_smoothing": 0.1}), ("bco_pair", {}),
    ],
)  # fmt: skip
def test_each_loss_alone_is_its_formula(name, options):
    pairs = PairLogProbs(**{field: paddle.to_tensor(values) for field, values in LOG_PROBS.items()})
    arguments = PreferenceArguments(loss_type=name, beta=0.3, **options)
    loss, metrics, _ = preference_loss(pairs, paddle.to_tensor(1.5), (0.0, 0), arguments)
    expected = by_hand(name, 0.3, options.get("label_smoothing", 0.0), options.get("reference_free", False))
    assert float(loss) == pytest.approx(expected, rel=2e-6)
    assert metrics["loss/quality" if name == "bco_pair" else "loss/preference"] == float(loss)
    assert metrics["loss/generation"] == 1.5 and ("delta" in metrics) == (name == "bco_pair")


@pytest.mark.parametrize(
    "given, weights",
    [
        ({}, {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}),
        ({"sigmoid_loss_weight": 0.5, "rpo_alpha": 0.0}, {"sigmoid": 0.5, "bco_pair": 0.2, "sft": 0.0}),
        ({"loss_type": "sigmoid,bco_pair"}, {"sigmoid": 1.0, "bco_pair": 1.0}),
        ({"loss_type": "hinge", "hinge_loss_weight": 2.0, "rpo_alpha": 0.5}, {"hinge": 2.0, "sft": 0.5}),
        ({"loss_type": "sft"}, {"sft": 1.0}),
    ],
)
def test_weights(given, weights):
    assert PreferenceArguments(**given).weights == weights


@pytest.mark.parametrize(
    "given, message",
    [
        ({"loss_type": "dpo"}, "loss_type='dpo'; supported, separated by commas: sigmoid, robust"),
        ({"loss_type": "sigmoid,hinge"}, "give one of sigmoid, hinge"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "label_smoothing has no effect"),
        ({"loss_type": "ipo", "sigmoid_loss_weight": 0.1}, "sigmoid_loss_weight has no effect"),
        ({"reference_free": True}, "bco_pair needs a reference model"),
        ({"beta": 0.0}, "beta=0.0 must be above 0"),
    ],
)
def test_faults_of_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        PreferenceArguments(**given)


def test_running_mean_over_ranks(monkeypatch):
    """Two ranks, of which one may have a batch without pairs."""
    other = [3.0, 1]
    monkeypatch.setattr(preference_losses.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(preference_losses.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        preference_losses.distributed,
        "all_reduce",
        lambda sums: sums.set_value(sums + paddle.to_tensor(other, sums.dtype)),
    )
    assert updated_running_mean((1.0, 2), 5.0) == (pytest.approx((2 * 1.0 + 5.0 + 3.0) / 4), 4)
    assert updated_running_mean((1.0, 2), None) == (pytest.approx((2 * 1.0 + 3.0) / 3), 3)
    other[:] = [0.0, 0]
    assert updated_running_mean((1.0, 2), None) == (1.0, 2)
