"""Out of memory during training: what to lower and by how much, from the sizes of the step."""

from __future__ import annotations

from dataclasses import dataclass

from paddle_internvl.estimation.training_plan import MASTER_BYTES, MOMENT_BYTES


@dataclass(frozen=True)
class StepSizes:
    """Sizes of the training step that ran out of memory.

    Attributes:
        rows: samples of the micro-batch, or 1 pack.
        tokens: length of a row.
        tiles: tiles of the micro-batch.
        accumulation: micro-batches of an optimizer step.
        trained: number of trained parameters of all ranks.
        low_precision: whether parameters are bfloat16, with float32 master weights.
        recompute: whether activations are recomputed in the backward pass.
        ranks: number of ranks.
        sharding: stage of sharding over the ranks.
        adapters: whether LoRA adapters alone are trained.
        packed: whether the row is a pack.
        max_dynamic_patch: most tiles of a picture.
    """

    rows: int
    tokens: int
    tiles: int
    accumulation: int = 1
    trained: int = 0
    low_precision: bool = False
    recompute: bool = False
    ranks: int = 1
    sharding: int = 0
    adapters: bool = False
    packed: bool = False
    max_dynamic_patch: int = 12


def memory_advice(sizes: StepSizes) -> list[str]:
    """Changes of arguments that need less memory; those that leave the results as they are come first."""
    advice = []
    if sizes.rows > 1:
        total = sizes.rows * sizes.accumulation
        rows = next(rows for rows in range(sizes.rows // 2, 0, -1) if total % rows == 0)
        advice.append(
            f"per_device_train_batch_size {rows} instead of {sizes.rows}, with gradient_accumulation_steps "
            f"{total // rows} instead of {sizes.accumulation} (the same batch)"
        )
    if not sizes.recompute:
        advice.append("recompute True (keeps the inputs of each layer alone for the backward pass)")
    state = sizes.trained * (MOMENT_BYTES + MASTER_BYTES * sizes.low_precision)
    if sizes.ranks > 1 and sizes.sharding == 0:
        advice.append(
            f"sharding stage1 ({_gigabytes(state * (1 - 1 / sizes.ranks))} less on each of {sizes.ranks} ranks)"
        )
    if sizes.ranks > 1 and sizes.sharding < 3:
        advice.append("sharding stage3 (gradients and weights are sharded too; slower)")
    if sizes.packed:
        advice.append(f"max_packed_tokens {sizes.tokens // 2} and num_images_expected {max(1, sizes.tiles // 2)}")
    if not sizes.adapters:
        gradients = sizes.trained * (2 if sizes.low_precision else 4)
        shards = [sizes.ranks if sizes.sharding >= stage else 1 for stage in (1, 2)]
        size = _gigabytes(state / shards[0] + gradients / shards[1])
        advice.append(f"LoRA (use_llm_lora 16, freeze_llm True: up to {size} less of gradients and optimizer)")
    if not sizes.packed and sizes.tiles > sizes.rows and sizes.max_dynamic_patch > 1:
        advice.append(f"max_dynamic_patch {sizes.max_dynamic_patch // 2} instead of {sizes.max_dynamic_patch}")
    if not sizes.packed and sizes.tokens > 1:
        advice.append(f"max_seq_length {sizes.tokens // 2} (a longer sample is an error, or cut with truncation True)")
    return advice


def memory_error(sizes: StepSizes, step: int, cause: BaseException) -> MemoryError:
    """The error of a training step that ran out of memory, in one line."""
    rows = "a pack" if sizes.packed else f"{sizes.rows} rows"
    reason = " ".join(str(cause).split())[-200:]
    return MemoryError(
        f"out of memory in step {step} with {rows} of {sizes.tokens} tokens and {sizes.tiles} tiles; change, in this "
        f"order: {'; '.join(memory_advice(sizes))} [{reason}]"
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
