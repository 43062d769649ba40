"""Sharding of a training run by its argument `sharding`: which stage, over which ranks, in which units.

Stage 1 is PaddleNLP's, which shards the optimizer state. Stages 2 and 3 are `parallel.parameter_shards`.
"""

from __future__ import annotations

from paddle.distributed import fleet
from paddlenlp.trainer import TrainerCallback, TrainingArguments

from paddle_internvl.estimation.training_plan import STAGES
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.parallel.parameter_shards import ParameterShards


def shard_parameters(model: InternVLNetwork, arguments: TrainingArguments) -> ParameterShards | None:
    """Shard the gradients of a model (stage 2), or its parameters too (stage 3), over the ranks of a run.

    Args:
        model: with its trainable parameters chosen; its parameters are replaced.
        arguments: PaddleNLP's.
    Returns:
        The shards; None: another stage, or one rank.
    """
    stage = stage_of(arguments)
    if stage < 2:
        return None
    ranks = fleet.get_hybrid_communicate_group()
    units = [*model.vision_model.encoder.layers, *model.language_model.model.layers]
    model.vit_batch_size = _ALL_TILES
    return ParameterShards(
        model, units, ranks.get_sharding_parallel_group(), ranks.get_data_parallel_group(), keep_whole=stage == 2
    )


_ALL_TILES = 1 << 30  # at once, so that every rank runs the tower's layers equally often


def shards_parameters(arguments: TrainingArguments) -> bool:
    """Whether a rank never has the whole model: stage 3."""
    return stage_of(arguments) == 3


def stage_of(arguments: TrainingArguments) -> int:
    """Stage of sharding, 0 to 3; 0 on one rank."""
    if arguments.sharding_parallel_degree <= 1:
        return 0
    return max((STAGES[str(getattr(option, "value", option))] for option in arguments.sharding), default=0)


class WholeParameters(TrainerCallback):
    """Gathers the whole parameters of stage 2 after each optimizer step."""

    def __init__(self, shards: ParameterShards):
        self._shards = shards

    def on_optimizer_end(self, args, state, control, **_trainer):
        """Gather them."""
        self._shards.update_whole()
