"""Training: supervised fine-tuning, LoRA and preference optimisation, by upstream's argument names."""

from importlib import import_module

_EXPORTS = {  # public name -> module; imported at first use
    "SFTDataset": "dataset",
    "PreferenceDataset": "preferences",
    "add_lora": "lora",
    "merge_lora": "lora",
    "train": "run",
    "sft_loss": "losses",
    "mpo_loss": "preference_losses",
    "PackedDataset": "packing",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
