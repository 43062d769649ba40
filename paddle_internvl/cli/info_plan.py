"""Loading plan of a checkpoint as a table: source tensors, conversion rule, storage form, device and shard of each
parameter. Reads headers only, and does not import Paddle.

In: a checkpoint folder. Out: one row for each parameter and rank.
"""

from __future__ import annotations

from pathlib import Path

from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from paddle_internvl.checkpoints.plan import LoadOptions, PlanEntry, plan_loading
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.parallel.shards import ShardPlan, ShardSpec

_DTYPES = {"cpu": "float32", "gpu": "bfloat16"}  # that is computed in, by device


def plan_rows(folder: Path, device: str = "cpu", ranks: int = 1) -> list[dict]:
    """The rows of the plan by which a model is loaded for inference.

    Args:
        folder: of the checkpoint.
        device: 'cpu', with the C++ kernels, or 'gpu'.
        ranks: of a tensor-parallel decoder.
    Returns:
        For each parameter of each rank: 'parameter', 'shape', 'tensors', 'rule', 'storage', 'dtype', 'device', 'rank',
        'shard' and 'reason'.
    Raises:
        CheckpointError: tensors that don't fit the config.json.
        ValueError: the decoder can't be sharded over so many ranks.
    """
    config = read_config(folder)
    view, rows = CheckpointView(Checkpoint(folder), config), []
    for rank in range(ranks):
        options = LoadOptions(
            dtype=_DTYPES[device],
            device_of=lambda parameter, rank=rank: device if device == "cpu" else f"gpu:{rank}",
            cpu_kernels=device == "cpu",
            shards=ShardPlan.of(config["llm_config"], rank, ranks) if ranks > 1 else None,
        )
        rows += [_row(entry, view, rank) for entry in plan_loading(view, config, options).entries]
    return rows


def _row(entry: PlanEntry, view: CheckpointView, rank: int) -> dict:
    copies = [copy for tensor in entry.tensors for copy in view.outputs[tensor].copies]
    return {
        "parameter": entry.parameter,
        "shape": list(entry.shape),
        "tensors": list(dict.fromkeys(copy.source for copy in copies)),
        "rule": entry.rule,
        "storage": entry.storage,
        "dtype": entry.dtype,
        "device": entry.device,
        "rank": rank,
        "shard": _shard(entry.shard),
        "reason": entry.reason,
    }


def _shard(shard: ShardSpec | None) -> str:
    return "" if shard is None else f"axis {shard.axis}: {shard.start}..{shard.stop} of {shard.whole}"
