"""Qwen2, Llama and Phi-3 in training: losses, gradients and runs of upstream's code, on samples of their templates."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddle_internvl import InternVLChatModel
from paddle_internvl.cli.main import main
from paddle_internvl.training import PackedDataset
from paddle_internvl.training.collate import collate
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import set_drop_path, set_trainable
from tests.training.families import FAMILIES, family_checkpoint
from tests.training.goldens import FOLDER, golden, relative_error, upstream_tensors
from tests.training.loop import GoldenRun, require_equal_steps, require_equal_weights, run_samples, train
from tests.training.lora_runs import peft_folder, require_equal_lora_run, require_merged_run, unmerged_checkpoint

BATCHES = ("sft", "sft_multi", "packed_square")
RUNS = {"full": ({}, "hf"), "full_one_group": ({}, "all"), "mlp": ({"freeze_llm": True}, "hf")}  # and a frozen tower
ADAPTED = ("qwen2", "phi3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """family -> its untrained checkpoint."""
    root = tmp_path_factory.mktemp("families")
    return {name: family_checkpoint(root / name, name) for name in FAMILIES}


@pytest.fixture(scope="module")
def golden_run(folders):
    """A function from family and run to the golden run."""

    def load(family: str, run: str) -> GoldenRun:
        arrays = np.load(FOLDER / f"families/{family}.npz")
        arrays = {key.partition(".")[2]: arrays[key] for key in arrays.files if key.startswith(f"{run}.")}
        content = golden(f"families/{family}")["runs"][run]
        return GoldenRun(content, arrays, run_samples(folders[family]), folders[family])

    return load


def batch_of(samples: list[dict], name: str, context_token: int) -> dict:
    if name != "packed_square":
        return collate(samples[:2] if name == "sft" else samples[2:4])
    options = {"loss_reduction": "square", "img_context_token_id": context_token}
    (pack,) = PackedDataset(samples[:4], max_packed_tokens=4096, num_images_expected=99, **options)
    assert [index for _, index in pack["samples"]] == [0, 1, 2, 3]
    return collate([pack])


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_upstream_s(family, folders):
    model = InternVLChatModel.from_pretrained(str(folders[family]), trainable=True)
    set_drop_path(model, 0.0)
    model.train()
    stored, samples = np.load(FOLDER / f"families/{family}.npz"), run_samples(folders[family])
    for name in BATCHES:
        expected = golden(f"families/{family}")["loss"][name]
        loss = sft_loss(model, batch_of(samples, name, model.img_context_token_id))
        assert float(loss) == pytest.approx(expected["loss"], rel=1e-6)
        loss.backward()
        gradients = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
        found = upstream_tensors(gradients, folders[family])
        assert found.keys() == expected["grad_norms"].keys()
        for key, norm in expected["grad_norms"].items():
            tolerance = {"rel": 2e-5, "abs": 1e-6 * expected["grad_global_norm"]}
            assert np.linalg.norm(found[key]) == pytest.approx(norm, **tolerance), (name, key)
        for key in stored.files:
            if key.startswith(f"{name}.grad."):
                assert relative_error(found[key.partition(".grad.")[2]], stored[key]) < 2e-5, (name, key)
        model.clear_gradients()


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_runs_are_upstream_s(family, run, golden_run):
    frozen, decay_rule = RUNS[run]
    expected = golden_run(family, run)
    ours = train(expected, lambda model: set_trainable(model, freeze_backbone=True, **frozen), decay_rule)
    require_equal_steps(ours, expected)
    require_equal_weights(ours, expected)
    without_decay = ours.initial.keys() - decayed_parameters(ours.model, decay_rule)
    arrays = {name: ours.initial[name] for name in without_decay}
    assert upstream_tensors(arrays, expected.checkpoint).keys() == set(expected.content["without_decay"])


@pytest.mark.parametrize("family", ADAPTED)
def test_lora_runs_are_peft_s(family, golden_run):
    require_equal_lora_run(golden_run(family, "lora"))


@pytest.mark.parametrize("family", ADAPTED)
def test_merged_and_unmerged_adapters_are_the_same_model(family, golden_run, tmp_path, capsys):
    """PEFT's folder and upstream's unmerged checkpoint, loaded and merged by `merge-lora`."""
    expected = golden_run(family, "lora")
    (tmp_path / "unmerged").mkdir()
    unmerged = unmerged_checkpoint(tmp_path / "unmerged", expected)
    assert main(["merge-lora", str(unmerged), str(tmp_path / "merged")]) == 0
    assert "layers merged" in capsys.readouterr().out
    model = InternVLChatModel.from_pretrained(str(tmp_path / "merged"), trainable=True)
    require_merged_run(model, expected)
    adapter = peft_folder(tmp_path / "adapter", expected)
    assert sorted(load_file(adapter / "adapter_model.safetensors")) == expected.content["adapter_keys"]
    loaded = InternVLChatModel.from_pretrained(str(expected.checkpoint), trainable=True, adapter=adapter)
    for (name, one), (_, other) in zip(model.named_parameters(), loaded.named_parameters()):
        assert (one == other).all(), name
