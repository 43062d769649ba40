"""Members of InternVL3.5 that are refused by their fields or tensors, and the member to take instead.

In: a config.json in upstream's spelling and the names of tensors. Out: an error, or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from convert import CheckpointError

_FLASH_FIELDS = ("flash_mode", "flash_relative_threshold", "flash_absolute_threshold")
_FLASH_TENSORS = ("mlp2.", "gating.", "pooling_before_gating.")  # the second projector, and the router of tiles
_SIZES = {  # layers and width of the language model -> the member
    (28, 1024): "1B", (28, 2048): "2B", (36, 2560): "4B", (36, 4096): "8B", (40, 5120): "14B", (64, 5120): "38B",
    (48, 2048): "30B-A3B", (94, 4096): "241B-A28B",
}  # fmt: skip


def refuse_flash(config: Mapping, names: Collection[str] = ()) -> None:
    """Refuse an InternVL3.5-Flash, by its config or its tensors.

    Args:
        config: a config.json in upstream's spelling.
        names: names of the checkpoint's tensors, as far as they were read.
    Raises:
        CheckpointError: the member is a Flash; names the member of the same size.
    """
    if not any(map(config.get, _FLASH_FIELDS)) and not any(name.startswith(_FLASH_TENSORS) for name in names):
        return
    llm = config.get("llm_config") or {}
    size = _SIZES.get((llm.get("num_hidden_layers"), llm.get("hidden_size")))
    member = f"InternVL3_5-{size}" if size else "the member of the same size without -Flash"
    raise CheckpointError(
        "InternVL3.5-Flash is not supported: its router, which decides by the pixels which tiles have 64 instead of "
        f"256 tokens, and its second projector (mlp2) are not implemented; take {member}"
    )
