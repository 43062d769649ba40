"""Checkpoint layouts: Hugging Face <-> Paddle, bytes in and bytes out. numpy only, no Paddle, no torch.

python -m convert hf2pd | pd2hf | inspect

safetensors_io   files and folders of named tensors
layouts          how fused weights are laid out, as segments
rules            one row per tensor, forward and backward; `plan` holds them against a checkpoint
mappings         the rows, one table per part of the model
streaming        folder -> folder
"""


class CheckpointError(ValueError):
    """A checkpoint that can't be read, planned or written. The message is one line: what is wrong and what to do."""
