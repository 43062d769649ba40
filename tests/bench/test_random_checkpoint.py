"""Random checkpoints: upstream's names and shapes, files that the safetensors library reads, values of use."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from convert.safetensors_io import Checkpoint
from paddle_internvl.bench import inputs
from paddle_internvl.bench import random_checkpoint as made
from tests.families import CASES
from tests.random_checkpoints import tiny_config, upstream_shapes


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes(case, tmp_path):
    folder = made.write_random(tmp_path / "hf", tiny_config(case))
    with safe_open(folder / "model.safetensors", framework="np") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == upstream_shapes(  # noqa: SIM118
            tiny_config(case)
        )
        assert all(np.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text()) == tiny_config(case)


def test_equal_seeds_give_equal_bytes_in_shards_of_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "_SHARD", 100_000)
    monkeypatch.setattr(made, "_ROWS", 1000)
    config = {**tiny_config("qwen2"), "torch_dtype": "bfloat16"}
    first, again, other = (made.write_random(tmp_path / str(i), config, seed) for i, seed in enumerate((1, 1, 2)))
    a, b, c = (Checkpoint(folder) for folder in (first, again, other))
    assert len({info.file for info in a.tensors.values()}) > 1 and {i.dtype for i in a.tensors.values()} == {"BF16"}
    assert all((a.array(name) == b.array(name)).all() for name in a.tensors)
    assert any((a.array(name) != c.array(name)).any() for name in a.tensors)
    values = (a.array("language_model.model.layers.0.mlp.up_proj.weight").astype(np.uint32) << 16).view(np.float32)
    assert values.std() == pytest.approx(56**-0.5, rel=0.05)


def test_a_shallow_config_keeps_its_widths():
    config = tiny_config("qwen2")
    cut = made.shallow(config, 1)
    assert cut["vision_config"]["num_hidden_layers"] == cut["llm_config"]["num_hidden_layers"] == 1
    assert cut["llm_config"]["hidden_size"] == 56 and config["llm_config"]["num_hidden_layers"] == 3


def test_inputs_are_the_same_for_both_sides():
    np.testing.assert_array_equal(inputs.pixels(2, 28), inputs.pixels(2, 28))
    ids = inputs.prompt(9, 4, 50)
    assert ids.shape == (1, 13) and (ids == inputs.image_token(50)).sum() == 4
    assert (ids[0, 4:8] == 49).all() and inputs.token_ids(1000, 50).max() == 48
    assert inputs.picture(64, 48).size == (64, 48)
