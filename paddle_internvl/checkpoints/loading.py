"""Loading: a checkpoint folder -> a filled model.

In: a folder (ours, or a raw Hugging Face one) or a hub id, and a model class. Out: the model, strictly filled, on the
device and in the dtype that `runtime` chooses. Raw folders go through `convert`'s own tables on the fly; nothing is
written.
"""

from __future__ import annotations

import paddle
from paddlenlp.utils.log import logger

from convert.adapter_peft import RANKS, is_unmerged
from convert.folder import read_config
from convert.quant_config import Quantization
from convert.safetensors_io import Checkpoint
from paddle_internvl import runtime
from paddle_internvl.checkpoints.fill import fill
from paddle_internvl.checkpoints.hub import folder_of
from paddle_internvl.checkpoints.merging import adapted_config, adapted_view, base_and_adapter
from paddle_internvl.checkpoints.plan import LoadOptions, plan_loading
from paddle_internvl.checkpoints.preparation import prepare_for_inference
from paddle_internvl.kernels import library
from paddle_internvl.ops import dispatch
from paddle_internvl.ops.dispatch import Case
from paddle_internvl.parallel.placement import blocks_of, choose_placement, install
from paddle_internvl.parallel.sharded_layers import shard_layers, sum_partial_outputs
from paddle_internvl.parallel.shards import ShardPlan
from paddle_internvl.parallel.tensor_parallel import join_process_group


def load(
    cls,
    name_or_path,
    dtype=None,
    device: str | None = None,
    device_map=None,
    config=None,
    quantization: Quantization | None = None,
    hub: dict | None = None,
    ranks: int = 1,
    trainable: bool = False,
    adapter=None,
    mapped: bool = False,
    int8_activations: bool = False,
    **overrides,
):
    """A model of class `cls` with a checkpoint's weights, in evaluation mode.

    Args:
        cls: a network class of `models`.
        name_or_path: see `hub.folder_of`.
        dtype: 'bfloat16', 'float16', 'float32' or None. A CPU computes in float32, and for inference it keeps bfloat16
            weights where it has kernels, unless this is 'float32'; 'bfloat16' is bfloat16 arithmetic where the
            processor has instructions for it.
        device: 'cpu', 'gpu' or None.
        device_map: several devices, see `parallel.placement.choose_placement`.
        config: instead of the folder's.
        quantization: of float weights while they are loaded.
        hub: keyword arguments of `hub.folder_of`.
        ranks: processes of a tensor-parallel model; each makes this call, and they wait for each other.
        trainable: plain parameters, and quantized layers that pass gradients on; False: the model is prepared for
            inference.
        adapter: folder of a LoRA adapter, which is merged into the weights; None: the one that `name_or_path` is, or
            none.
        mapped: leave the float weights in host memory, mapped from the checkpoint's files where these are in Paddle's
            layout and in `dtype`; for a caller that shards them (`parallel.parameter_shards`).
        int8_activations: see `preparation.prepare_for_inference`.
        overrides: fields of the config.
    Returns:
        The model; its `process_group` has the ranks, or is None; its `merged_adapter` is the folder of the adapter in
        its weights, or None.
    Raises:
        CheckpointError: weights that do not fit the model, all problems counted.
        ValueError: an unknown field, dtype or device, or options that exclude each other.
    """
    if trainable and (ranks > 1 or device_map is not None):
        raise ValueError("trainable=True loads a whole model on one device; leave device_map and tensor parallel out")
    if int8_activations and trainable:
        raise ValueError("int8_activations=True is for inference; leave trainable=True out")
    folder = folder_of(name_or_path, **(hub or {}))
    if adapter is None:
        folder, adapter = base_and_adapter(folder)
    checkpoint = Checkpoint(folder)
    merged = folder if is_unmerged(checkpoint.tensors) else adapter
    config = _config(cls, folder, adapter, config, overrides)
    group, shards = None, None
    if ranks > 1:
        group, device = join_process_group(config, ranks, device, device_map)
        shards = ShardPlan.of(vars(config.llm_config), group.rank, group.size)
    placement = choose_placement(device_map, device, config)
    device = placement.home
    requested = None if dtype is None else str(dtype).removeprefix("paddle.")
    dtype, reason = runtime.choose_dtype(requested, device)
    bfloat16, reason = _bfloat16_arithmetic(requested, device, trainable, reason)
    if device == "cpu":
        runtime.set_cpu_threads()
    config.dtype = dtype
    options = LoadOptions(
        dtype=dtype,
        device_of=placement.device,
        trainable=trainable,
        cpu_kernels=device == "cpu" and dispatch.choose_for("linear", Case("cpu", "float32")) == "native",
        keep_dtype=requested != "float32",
        quantization=quantization,
        shards=shards,
        mapped=mapped,
    )
    view = adapted_view(checkpoint, read_config(folder), adapter)
    for name in vars(config).keys() & RANKS.values():
        setattr(config, name, 0)  # nothing is unmerged any more
    with paddle.LazyGuard():  # parameters without memory
        model = cls(config)
        blocks = blocks_of(model, placement)
        if group is not None:
            shard_layers(model, shards, group)
    paddle.set_device(placement.home)  # of every layer outside the blocks
    plan = plan_loading(view, read_config(folder), options)
    fill(model, view, plan, dtype, trainable)
    if placement.several:
        install(model, blocks, placement)
    if group is not None:
        sum_partial_outputs(model, group)
        group.barrier()
    model.checkpoint_folder, model.process_group, model.merged_adapter = folder, group, merged
    if int8_activations:
        reason += f"; int8 activations by {library.int8_isa()}" if not library.unavailable_reason() else ""
    _log(model, placement, dtype, reason, plan.summary())
    return model.eval() if trainable else prepare_for_inference(model, bfloat16, int8_activations)


def quantization_of(in_8bit: bool, in_4bit: bool, group_size: int | None, head: bool) -> Quantization | None:
    """The weight-only quantization that the arguments of `from_pretrained` name.

    Raises:
        ValueError: arguments that contradict each other.
    """
    if in_8bit and in_4bit:
        raise ValueError("load_in_8bit and load_in_4bit exclude each other")
    if in_8bit:
        return Quantization("weight_only_int8", -1 if group_size is None else group_size, head)
    if in_4bit:
        return Quantization("weight_only_int4", 64 if group_size is None else group_size, head)
    for name, is_set in (("group_size", group_size is not None), ("quantize_head", head)):
        if is_set:
            raise ValueError(f"{name} needs load_in_8bit=True or load_in_4bit=True")
    return None


def _bfloat16_arithmetic(requested: str | None, device: str, trainable: bool, reason: str) -> tuple[bool, str]:
    """Whether the CPU's kernels compute in bfloat16, and the reason of the dtype for the log."""
    if requested != "bfloat16" or device != "cpu" or trainable or library.unavailable_reason():
        return False, reason
    isa = library.bfloat16_isa()
    if not isa:
        return False, "this processor has no bfloat16 instructions: weights stay bfloat16, sums are exact in float32"
    return True, f"products and attention in bfloat16 by {isa}"


def _config(cls, folder, adapter, config, overrides: dict):
    """A config of its own for the model, validated with the overrides."""
    if config is None:
        config = cls.config_class.from_dict(adapted_config(read_config(folder), adapter))
    return config.with_overrides(**overrides)


def _log(model, placement, dtype: str, reason: str, weights: str) -> None:
    device = placement.home.partition(":")[0]
    attention = dispatch.choose_for("attention", Case(device, dtype))
    linear = f", linear: {dispatch.choose_for('linear', Case('cpu', dtype))}" if device == "cpu" else ""
    weights = f"; {weights}" if weights else ""
    logger.info(
        f"{model.checkpoint_folder}: {dtype} on {placement} ({reason}), attention: {attention}{linear}{weights}"
    )
