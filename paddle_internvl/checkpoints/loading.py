"""A checkpoint folder -> a filled model.

In: a folder (ours, or a raw Hugging Face one) or a hub id, and a model class. Out: the model, strictly filled, on the
device and in the dtype that `runtime` chooses. Raw folders go through `convert`'s own tables on the fly; nothing is
written. It knows neither text nor pictures.
"""

from __future__ import annotations

import paddle
from paddlenlp.utils.log import logger

from convert.folder import read_config
from convert.mappings import paddle_config
from convert.quant_config import Quantization
from convert.safetensors_io import Checkpoint
from paddle_internvl import runtime
from paddle_internvl.checkpoints.filling import fill
from paddle_internvl.checkpoints.hub import folder_of
from paddle_internvl.ops import dispatch
from paddle_internvl.parallel.placement import blocks_of, choose_placement, install
from paddle_internvl.parallel.sharded_layers import sum_partial_outputs
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
    **overrides,
):
    """A model of class `cls` with a checkpoint's weights, in evaluation mode.

    Args:
        cls: a network class of `models`. name_or_path: see `hub.folder_of`; hub: its keyword arguments.
        dtype: 'bfloat16', 'float16', 'float32' or None; a CPU always computes in float32, but keeps bfloat16 weights as
            they are where it has kernels, unless this is 'float32'. device: 'cpu', 'gpu' or None.
        device_map: several devices, see `parallel.placement.choose_placement`.
        config: instead of the folder's. quantization: of float weights while they are loaded.
        ranks: processes that share the language model; each makes this call, and they wait for each other.
        overrides: fields of the config.
    Returns:
        The model; its `process_group` is that of the ranks, or None.
    Raises:
        CheckpointError: weights that do not fit the model, all problems counted. ValueError: an unknown field, dtype
        or device.
    """
    folder = folder_of(name_or_path, **(hub or {}))
    checkpoint = Checkpoint(folder)
    if config is None:
        config = cls.config_class.from_dict(paddle_config(read_config(folder)))
    for name, value in overrides.items():
        if not hasattr(config, name):
            raise ValueError(f"{name!r} is neither an argument of from_pretrained nor a field of the config")
        setattr(config, name, value)
    group = None
    if ranks > 1:
        group, device = join_process_group(config, ranks, device, device_map)
    places = choose_placement(device_map, device, config)
    device = places.home
    wanted = None if dtype is None else str(dtype).removeprefix("paddle.")
    dtype, reason = runtime.choose_dtype(wanted, device)
    if device == "cpu":
        runtime.set_cpu_threads()
    config.dtype = dtype
    with paddle.LazyGuard():  # parameters without memory, which the checkpoint's arrays become
        model = cls(config)
    blocks = blocks_of(model, places)
    paddle.set_device(places.home)  # where all is computed that is no block's
    note = fill(model, checkpoint, read_config(folder), dtype, places, quantization, group, wanted != "float32")
    if places.several:
        install(model, blocks, places)
    if group is not None:
        sum_partial_outputs(model, group)
        group.barrier()
    attention = dispatch.choose_attention(device, dtype)
    kernels = f", linear: {dispatch.form_for('linear', False, dtype)}" if device == "cpu" else ""
    note = f"; {note}" if note else ""
    logger.info(f"{folder}: {dtype} on {places} ({reason}), attention: {attention}{kernels}{note}")
    model.checkpoint_folder, model.process_group = folder, group
    return model.eval()
