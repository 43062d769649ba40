"""Preference losses: mixed preference optimisation (MPO), DPO and its variants, BCO.

In: log-probabilities of chosen and rejected answers under the policy and a frozen reference model. Out: a scalar to
differentiate, metrics, and the running mean of the rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import distributed

from paddle_internvl.training.arguments import PreferenceArguments

RunningMean = tuple[float, int]  # of the rewards of the batches so far, and their number


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probabilities of the answers of B pairs, each summed over the tokens of its answer.

    Attributes:
        policy_chosen: float32 [B], of the chosen answers by the policy.
        policy_rejected: of the rejected answers.
        reference_chosen: the same of the frozen reference model.
        reference_rejected: of the rejected answers.
        chosen_tokens: float32 [B], tokens of the chosen answers; needed for ipo alone.
        rejected_tokens: of the rejected answers.
    """

    policy_chosen: paddle.Tensor
    policy_rejected: paddle.Tensor
    reference_chosen: paddle.Tensor
    reference_rejected: paddle.Tensor
    chosen_tokens: paddle.Tensor | float = 1.0
    rejected_tokens: paddle.Tensor | float = 1.0


def _sigmoid(ratio: paddle.Tensor, beta: float, smoothing: float) -> paddle.Tensor:
    return -(1 - smoothing) * F.log_sigmoid(beta * ratio) - smoothing * F.log_sigmoid(-beta * ratio)


def _robust(ratio: paddle.Tensor, beta: float, smoothing: float) -> paddle.Tensor:
    loss = smoothing * F.log_sigmoid(-beta * ratio) - (1 - smoothing) * F.log_sigmoid(beta * ratio)
    return loss / (1 - 2 * smoothing)


def _hinge(ratio: paddle.Tensor, beta: float, _smoothing: float) -> paddle.Tensor:
    return F.relu(1 - beta * ratio)


def _ipo(ratio: paddle.Tensor, beta: float, _smoothing: float) -> paddle.Tensor:
    return (ratio - 1 / (2 * beta)).square()


# Losses of the log ratio log p(chosen) - log p(rejected), policy minus reference: [B] -> [B].
PREFERENCE_LOSSES: dict[str, Callable] = {
    "sigmoid": _sigmoid,  # DPO, https://arxiv.org/abs/2305.18290
    "robust": _robust,  # https://arxiv.org/abs/2403.00409
    "hinge": _hinge,  # SLiC, https://arxiv.org/abs/2305.10425
    "ipo": _ipo,  # https://arxiv.org/abs/2310.12036; of log-probabilities per token
}


def preference_loss(
    pairs: PairLogProbs,
    nll: paddle.Tensor,
    running_mean: RunningMean,
    arguments: PreferenceArguments,
    update: bool = True,
) -> tuple[paddle.Tensor, dict[str, float], RunningMean]:
    """The weighted sum of the losses of `loss_type`: preference (DPO or a variant), quality (BCO) and generation (SFT).

    Args:
        pairs: of the batch.
        nll: float32 scalar, mean negative log-probability of the chosen answers' tokens.
        running_mean: mean reward of the batches before, and their number.
        arguments: losses and weights.
        update: add this batch to the running mean.
    Returns:
        The loss, float32 scalar; metrics by name (losses unweighted, rewards weighted as the losses, sums for ipo
        too); the running mean with this batch, which the next call takes. It is the reward threshold `delta` of BCO.
    Source: upstream `trainer_dpo.py`; TRL 0.9.6 `DPOTrainer.dpo_loss`.
    """
    beta, weights = arguments.beta, arguments.weights
    reference = 0.0 if arguments.reference_free else 1.0
    chosen = beta * (pairs.policy_chosen - reference * pairs.reference_chosen)
    rejected = beta * (pairs.policy_rejected - reference * pairs.reference_rejected)
    losses = {}
    for name, function in PREFERENCE_LOSSES.items():
        if name in weights:
            per_token = (pairs.chosen_tokens, pairs.rejected_tokens) if name == "ipo" else (1.0, 1.0)
            ratio = (chosen / per_token[0] - rejected / per_token[1]) / beta
            losses[name] = function(ratio, beta, arguments.label_smoothing).mean()
    if "bco_pair" in weights:
        if update:
            running_mean = updated_running_mean(running_mean, float(paddle.concat([chosen, rejected]).detach().mean()))
        delta = running_mean[0]
        losses["bco_pair"] = -(F.log_sigmoid(chosen - delta) + F.log_sigmoid(delta - rejected)).mean()
    losses["sft"] = nll
    loss = sum(weight * losses[name] for name, weight in weights.items())
    scale = sum(weight for name, weight in weights.items() if name != "sft") or 1.0  # all losses have the same rewards
    rewards = scale * chosen.detach(), scale * rejected.detach()
    metrics = {
        **{f"loss/{_METRICS[name]}": value for name, value in losses.items()},
        "rewards/chosen": rewards[0].mean(),
        "rewards/rejected": rewards[1].mean(),
        "rewards/accuracies": (rewards[0] > rewards[1]).astype("float32").mean(),
        "rewards/margins": (rewards[0] - rewards[1]).mean(),
        "logps/chosen": pairs.policy_chosen.mean(),
        "logps/rejected": pairs.policy_rejected.mean(),
        "delta": running_mean[0],
    }
    return loss, {name: float(metrics[name]) for name in metric_names(arguments)}, running_mean


_METRICS = {"bco_pair": "quality", "sft": "generation", **dict.fromkeys(PREFERENCE_LOSSES, "preference")}
_REWARDS = tuple(f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins"))


def metric_names(arguments: PreferenceArguments) -> tuple[str, ...]:
    """Names of the metrics of `preference_loss`."""
    losses = [f"loss/{_METRICS[name]}" for name in arguments.weights if name != "sft"] + ["loss/generation"]
    delta = ["delta"] if "bco_pair" in arguments.weights else []
    return (*losses, *_REWARDS, "logps/chosen", "logps/rejected", *delta)


def mpo_loss(
    policy_chosen: paddle.Tensor,
    policy_rejected: paddle.Tensor,
    reference_chosen: paddle.Tensor,
    reference_rejected: paddle.Tensor,
    nll: paddle.Tensor,
    running_mean: RunningMean = (0.0, 0),
    beta: float = 0.1,
    weights: tuple[float, float, float] = (0.8, 0.2, 1.0),
) -> tuple[paddle.Tensor, dict[str, float], RunningMean]:
    """Mixed preference optimisation (MPO): preference (DPO), quality (BCO) and generation loss.

    Args:
        policy_chosen: float32 [B], log-probabilities of the chosen answers, summed over their tokens.
        policy_rejected: of the rejected answers.
        reference_chosen: the same of the frozen reference model.
        reference_rejected: of the rejected answers.
        nll: float32 scalar, mean negative log-probability of the chosen answers' tokens.
        running_mean: mean reward of the batches before, and their number.
        beta: strength of the pull to the reference model.
        weights: of preference, quality and generation loss.
    Returns:
        See `preference_loss`.
    Source: BCO, https://arxiv.org/abs/2404.04656; MPO, https://arxiv.org/abs/2411.10442; upstream `trainer_dpo.py`.
    """
    pairs = PairLogProbs(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    names = ("sigmoid_loss_weight", "bco_pair_loss_weight", "rpo_alpha")
    return preference_loss(pairs, nll, running_mean, PreferenceArguments(beta=beta, **dict(zip(names, weights))))


def updated_running_mean(running_mean: RunningMean, value: float | None) -> RunningMean:
    """The running mean with the mean reward of one more batch of each rank, each of the same weight.

    Every rank calls it at the same time.

    Args:
        running_mean: so far.
        value: of this rank's batch; None: the batch has no pairs.
    Source: TRL 0.9.6 `RunningMoments`.
    """
    mean, count = running_mean
    total, added = (0.0, 0) if value is None else (value, 1)
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        sums = paddle.to_tensor([total, added], dtype="float64")
        distributed.all_reduce(sums)
        total, added = float(sums[0]), int(sums[1])
    if not added:
        return running_mean
    return mean + (total - mean * added) / (count + added), count + added
