"""How much memory a model takes on each device, from its config.json alone, and what would make it take less.

In: a config.json's dict and a `Plan`. Out: an `Estimate` of bytes. Loads no weights, imports no Paddle.
"""

from paddle_internvl.estimation.memory import Estimate, estimate, ways_out
from paddle_internvl.estimation.plan import Plan

__all__ = ["Estimate", "Plan", "estimate", "ways_out"]
