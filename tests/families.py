"""The families under test: one row a family, from which its tests of every package are made.

A row names a tiny config of configs/tiny. `tests/conftest.py` makes the fixtures `case`, `hf_folders` and `models` of
the rows.
numpy only: the scripts that write goldens use the table too.

| what a row is tested for | by |
|---|---|
| mapping, byte-equal round trip, resuming | convert/test_rules.py, convert/test_streaming.py |
| loading, saving, raw equals converted | checkpoints/test_loading.py |
| KV cache, batch, padding, packing | models/test_decoder.py |
| numbers and answers of upstream (`golden`) | models/test_reference.py, chat/test_cards.py, gpu/test_figures.py |
| the same of `MEMBERS` | models/test_reference.py, chat/test_cards.py |
| native kernels, or their refusal | kernels/test_native_layers.py |
| 8 and 4 bits, AWQ (`quantizable`) | checkpoints/test_quantization.py |
| tensor parallel (`shardable`) | parallel/test_sharded_layers.py |
| graph and dtypes of a CUDA program | gpu/test_graphs.py |
| estimated memory | estimation/test_weights.py |
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from tests.random_checkpoints import tiny_config


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        golden: whether tests/goldens has upstream's numbers of it.
        native: whether the CPU kernels implement it.
        shardable: fields of `llm_config` with which two ranks can share its heads.
        quantizable: fields of `llm_config` with which its widths fit the quantized layouts; None: another row stands
            for it.
    """

    golden: bool = True
    native: bool = True
    shardable: dict = field(default_factory=dict)
    quantizable: dict | None = field(default_factory=dict)


FAMILIES = {
    "dynamic_gqa": Family(quantizable={"num_key_value_heads": 2}),
    "biased_v1": Family(quantizable={"num_key_value_heads": 1}),
    "qwen2": Family(shardable={"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2}),
    "llama": Family(),
    "phi3_su": Family(
        quantizable={"rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}}
    ),
    "phi3_yarn": Family(quantizable=None),
    "qwen3": Family(quantizable={"head_dim": 32}),  # head_dim of its own, q and k norms
    # top 2 of 8 experts behind a layer with an MLP, one kv head, interpolated positions
    "qwen3_moe": Family(quantizable=None),
}
MEMBERS = ("internvl3",)  # a family from above in another generation's config.json: upstream's numbers alone
CASES = tuple(FAMILIES)
SCHEDULED = ("dynamic_gqa", "phi3_su", "qwen3")  # for schedules: tables of positions that grow, of two kinds, and fixed
CHATTING = tuple(name for name in CASES if name != "qwen3_moe")  # for chats: whose prompts differ
GOLDEN = tuple(name for name, family in FAMILIES.items() if family.golden)
NATIVE = tuple(name for name, family in FAMILIES.items() if family.native)
QUANTIZABLE = tuple(name for name, family in FAMILIES.items() if family.quantizable is not None)
_QUANTIZED_WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}


def shardable_config(case: str) -> dict:
    """A family's config whose heads two ranks can share."""
    return _with_llm(case, FAMILIES[case].shardable)


def quantizable_config(case: str) -> dict:
    """A family's config whose widths fit Paddle's packed layout and AWQ's groups."""
    return _with_llm(case, {**_QUANTIZED_WIDTHS, **FAMILIES[case].quantizable})


def _with_llm(case: str, fields: dict) -> dict:
    config = tiny_config(case)
    config["llm_config"].update(deepcopy(fields))  # tests change configs
    return config
