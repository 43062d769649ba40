"""Estimate of the memory that a model takes on each device, from its config.json alone, and the plans that would fit.

In: a config.json's dict and a `Plan`. Out: an `Estimate` in bytes. Loads no weights, imports no Paddle.
"""

from paddle_internvl.estimation.memory import Estimate, estimate, fitting_plans
from paddle_internvl.estimation.plan import Plan

__all__ = ["Estimate", "Plan", "estimate", "fitting_plans"]
