"""Estimate of the memory that a model takes on each device, from its config.json alone, and the plans that would fit.

In: a config.json's dict and a `Plan`, or a `TrainPlan`. Out: an estimate in bytes. Loads no weights, imports no Paddle.
"""

from paddle_internvl.estimation.memory import Estimate, estimate, fitting_plans
from paddle_internvl.estimation.plan import Plan
from paddle_internvl.estimation.training import TrainEstimate, estimate_training
from paddle_internvl.estimation.training_plan import TrainPlan
from paddle_internvl.estimation.weights import ParameterCounts, parameter_counts

__all__ = [
    "Estimate", "ParameterCounts", "Plan", "TrainEstimate", "TrainPlan", "estimate", "estimate_training",
    "fitting_plans", "parameter_counts",
]  # fmt: skip
