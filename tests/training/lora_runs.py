"""Golden LoRA runs of PEFT: their initial adapters, and the comparison of a run with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_internvl.training.collate import collate
from paddle_internvl.training.lora import add_lora, merge_lora, targets_of
from paddle_internvl.training.losses import sft_loss
from tests.training.loop import GoldenRun, require_equal_steps, train


def _rules(model, rank: int):
    for target in targets_of(model):
        if target.tower == "language_model" and target.in_block:
            yield from target.rules(rank)


def rank_of(expected: GoldenRun) -> int:
    return expected.content["settings"]["lora"]["r"]


def with_initial_values(model, expected: GoldenRun) -> None:
    """Add the adapters of a golden run, as they are before its first step."""
    settings, initial = expected.content["settings"]["lora"], expected.stored("init")
    add_lora(model, use_llm_lora=settings["r"], lora_alpha=settings["alpha"])
    for rule in _rules(model, settings["r"]):
        for output in rule.forward():
            array = np.empty(output.shape, np.float32)
            output.fill(initial.__getitem__, array, 0, output.shape[0])
            model.state_dict()[output.name].set_value(array)


def adapters(model, rank: int) -> dict[str, np.ndarray]:
    """Adapters under upstream's names."""
    arrays = {name: p.numpy() for name, p in model.named_parameters() if ".lora_" in name}
    found = {}
    for rule in _rules(model, rank):
        (output,) = rule.backward()
        found[output.name] = np.empty(output.shape, np.float32)
        output.fill(arrays.__getitem__, found[output.name], 0, output.shape[0])
    return found


def require_equal_lora_run(expected: GoldenRun) -> None:
    """Steps, adapters, losses and merged weights of a run are those of the golden one."""
    run = train(expected, lambda model: with_initial_values(model, expected), "hf")
    require_equal_steps(run, expected)
    initial, final, ours = expected.stored("init"), expected.stored("final"), adapters(run.model, rank_of(expected))
    assert ours.keys() == final.keys()
    for name, value in final.items():
        assert np.linalg.norm(ours[name] - value) <= 1e-3 * np.linalg.norm(value - initial[name]), name
    batch, content = collate(expected.samples[:2]), expected.content
    assert float(sft_loss(run.model, batch)) == pytest.approx(content["loss_of_first_two_samples_after"], rel=5e-6)
    merged = merge_lora(run.model)
    assert float(sft_loss(merged, batch)) == pytest.approx(content["loss_of_first_two_samples_merged"], rel=5e-6)
    before, after = (expected.upstream_tensors(model) for model in (expected.load(), merged))
    for name, change in content["merged_change_norms"].items():
        assert np.linalg.norm(after[name] - before[name]) == pytest.approx(change, rel=1e-3), name
    for name, value in expected.stored("merged").items():
        assert np.linalg.norm(after[name] - value) <= 1e-3 * np.linalg.norm(value - before[name]), name
    assert {name for name in before if (before[name] != after[name]).any()} == set(content["merged_change_norms"])


def peft_folder(folder: Path, expected: GoldenRun, prefix: str = "base_model.model.", **fields) -> Path:
    """Write the trained adapter of a golden run as PEFT saves it.

    Args:
        folder: made if it does not exist.
        expected: the golden run.
        prefix: of the names of the language model's layers.
        fields: of adapter_config.json in place of the golden's.
    """
    folder.mkdir(exist_ok=True)
    config = {"base_model_name_or_path": str(expected.checkpoint)}
    config = {**expected.content["adapter_config"], **config, **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    values = expected.stored("final").items()
    values = {name.replace("language_model.", prefix): np.ascontiguousarray(value) for name, value in values}
    save_file(values, folder / "adapter_model.safetensors")
    return folder


def unmerged_checkpoint(folder: Path, expected: GoldenRun) -> Path:
    """Write the trained model of a golden run in upstream's layout of unmerged adapters."""
    for file in expected.checkpoint.iterdir():
        if not file.name.startswith("model"):
            shutil.copy(file, folder)
    arrays = {}
    for file in expected.checkpoint.glob("model*.safetensors"):
        for name, value in load_file(file).items():
            if name.startswith("language_model.") and ".layers." in name and "norm" not in name:
                stem, _, kind = name.rpartition(".")
                name = f"{stem}.base_layer.{kind}"
            arrays[_wrapped(name)] = value
    for name, value in expected.stored("final").items():
        arrays[_wrapped(name).replace(".weight", ".default.weight")] = np.ascontiguousarray(value)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_llm_lora": rank_of(expected)}))
    keys = expected.content["unmerged_state_dict_keys"]
    assert {name: list(arrays[name].shape) for name in keys} == keys
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    return folder


def _wrapped(name: str) -> str:
    return name.replace("language_model.", "language_model.base_model.model.")


def require_merged_run(model, expected: GoldenRun) -> None:
    """A model has the merged weights of a golden run, and the loss."""
    before, after = (expected.upstream_tensors(m) for m in (expected.load(), model))
    for name, value in expected.stored("merged").items():
        np.testing.assert_allclose(after[name], value, atol=1e-6)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == set(expected.content["merged_change_norms"])
    merged_loss = expected.content["loss_of_first_two_samples_merged"]
    assert float(sft_loss(model, collate(expected.samples[:2]))) == pytest.approx(merged_loss, rel=2e-6)
