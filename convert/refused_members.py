"""Members of InternVL3 and 3.5 that are refused by their fields or tensors, and the member to take instead.

In: a config.json in upstream's spelling, names of tensors, the class of the tokenizer. Out: an error, or nothing.
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

INTERNLM3_TOKENIZER = "InternVL3-9B's tokenizer (InternLM3's) is not implemented; take InternVL3-8B"
_INTERNLM2_ROWS = 100_000  # an InternLM2 has 92,544 words and a few added ones, an InternLM3 has 128 thousand


def refuse_internlm3(config: Mapping, tokenizer_class: str) -> None:
    """Refuse to chat with InternVL3-9B, whose weights are an InternLM2's and whose tokenizer is another.

    Args:
        config: a config.json in upstream's spelling.
        tokenizer_class: of tokenizer_config.json.
    Raises:
        CheckpointError: the member is InternVL3-9B.
    """
    llm = config.get("llm_config") or {}
    is_internlm2 = "InternLM2ForCausalLM" in (llm.get("architectures") or ())
    if tokenizer_class.startswith("InternLM3") or is_internlm2 and llm.get("vocab_size", 0) > _INTERNLM2_ROWS:
        raise CheckpointError(INTERNLM3_TOKENIZER)


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
