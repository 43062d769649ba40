"""A checkpoint with the number of tensors of InternVL3.5-241B-A28B, in tiny widths. `pytest -m soak` runs it."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel
from safetensors.numpy import load_file

from convert.streaming import convert
from tests.random_checkpoints import random_checkpoint, tiny_config

pytestmark = pytest.mark.soak


def test_both_ways_and_loaded(tmp_path):
    config = tiny_config("qwen3_moe")
    config["llm_config"] |= {
        "num_hidden_layers": 94, "num_experts": 128, "num_experts_per_tok": 8, "hidden_size": 16, "head_dim": 8,
        "moe_intermediate_size": 8, "num_attention_heads": 2, "mlp_only_layers": [],
    }  # fmt: skip
    source = random_checkpoint(tmp_path / "hf", config, max_shard_size=4_000_000)
    audit = convert(source, tmp_path / "pd", to_paddle=True)
    assert audit.keys_in > 36_096 and audit.keys_out < 1_100
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False, max_shard_size=4_000_000)
    files = sorted(file.name for file in source.glob("*.safetensors"))
    for file in files:
        one, other = load_file(source / file), load_file(tmp_path / "back" / file)
        assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    ids, found = paddle.to_tensor([[5, 6, 7]]), []
    for folder in (source, tmp_path / "pd"):
        with paddle.no_grad():
            found.append(AutoModel.from_pretrained(str(folder)).language_model(ids).numpy())
    np.testing.assert_array_equal(found[0], found[1])
