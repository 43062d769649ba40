"""`train --method mpo`: the steps of upstream's run, reference models, resuming, held-out pairs, skipped pairs."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel

from paddle_internvl.cli.main import main
from paddle_internvl.training import add_lora, checkpoint_folders, train
from paddle_internvl.training.collate import collate
from paddle_internvl.training.recipe import Recipe
from paddle_internvl.training.reference import FrozenReference, answer_log_probs, answer_tokens
from paddle_internvl.training.trainable import set_drop_path
from tests.training.families import family_checkpoint
from tests.training.goldens import CHECKPOINT, golden, upstream_tensors
from tests.training.preference_pairs import DATA, EXPECTED, ITEMS, golden_items, pairs_of, write_meta
from tests.training.preference_runs import DATA as RUN_DATA
from tests.training.preference_runs import RUNS

STEPS = EXPECTED["steps"]
CONFIG = {
    "max_steps": 6, "per_device_train_batch_size": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "weight_decay": 0.05, "decay_rule": "hf", "max_grad_norm": 1.0, "shuffle": False, "device": "cpu",
    "save_strategy": "no",
}  # fmt: skip
ADAPTERS = {"use_llm_lora": 4, "freeze_llm": True, "freeze_mlp": True, "freeze_backbone": True}


def load():
    return AutoModel.from_pretrained(str(CHECKPOINT), trainable=True)


def values(model) -> dict[str, np.ndarray]:
    return {name: p.numpy() for name, p in model.named_parameters()}


def metrics_of(output) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_steps_are_those_of_upstreams_trainer(tmp_path):
    """By the command line; the held-out pair is that of upstream's evaluation after the last step."""
    for name, items in (("train", golden_items()), ("eval", golden_items()[:1])):
        (tmp_path / name).mkdir()
        write_meta(tmp_path / name, items)
    metas = {f"{p}meta_path": str(tmp_path / f / "meta.json") for p, f in (("", "train"), ("eval_", "eval"))}
    config = {**CONFIG, **DATA, **metas, "group_by_length": False, "plot": str(tmp_path / "plot.png")}
    (tmp_path / "run.json").write_text(json.dumps({**config, "model_name_or_path": str(CHECKPOINT)}))
    assert main(["train", str(tmp_path / "run.json"), "--method", "mpo", "--output_dir", str(tmp_path / "out")]) == 0
    lines = metrics_of(tmp_path / "out")
    require_equal_steps(lines, STEPS[:6])
    assert [line["tiles"] for line in lines] == [step["shapes"]["tiles"] for step in STEPS[:6]]
    after, last = STEPS[6], lines[-1]
    assert last["eval_logps/chosen"] == pytest.approx(after["logps/policy_chosen"][0], rel=2e-5)
    assert last["eval_rewards/margins"] == pytest.approx(after["rewards/margins"], abs=5e-4)
    assert last["eval_loss/generation"] == pytest.approx(after["losses/sft"], rel=5e-5)
    assert last["eval_pairs"] == 1 and last["eval_delta"] == last["delta"]  # evaluation leaves the running mean alone
    assert (tmp_path / "plot.png").is_file()
    initial, final = (values(model) for model in (load(), AutoModel.from_pretrained(str(tmp_path / "out"))))
    require_equal_changes(final, initial, EXPECTED["change_norms"], CHECKPOINT)


@pytest.mark.parametrize("name", RUNS)
def test_steps_of_other_families_and_batches_are_those_of_upstreams_trainer(name, tmp_path):
    family, template, batch_size = RUNS[name]
    expected, checkpoint = golden(f"mpo/{name}"), CHECKPOINT
    if family != "internlm2":
        checkpoint = family_checkpoint(tmp_path / "untrained", family)
    items = {item["id"]: item for item in ITEMS}
    pairs = pairs_of(tmp_path, [items[each] for each in expected["order"]], checkpoint, **RUN_DATA, conv_style=template)
    config = {**CONFIG, "per_device_train_batch_size": batch_size, "output_dir": str(tmp_path / "out")}
    model = AutoModel.from_pretrained(str(checkpoint), trainable=True)
    initial = values(model)
    train(config, model=model, dataset=pairs, method="mpo")
    lines = metrics_of(tmp_path / "out")
    require_equal_steps(lines, expected["steps"])
    for line, step in zip(lines, expected["steps"]):
        assert line["tiles"] == step["tiles"]
        assert line["loss/preference"] == pytest.approx(np.mean(step["losses/dpo"]), abs=5e-4)
        assert line["loss/quality"] == pytest.approx(np.mean(step["losses/bco"]), abs=5e-4)
        assert line["loss/generation"] == pytest.approx(step["losses/sft"], rel=5e-5)
    require_equal_changes(values(model), initial, expected["change_norms"], checkpoint)


def require_equal_steps(lines: list[dict], steps: list[dict]) -> None:
    """Compare metrics with upstream's."""
    for number, (line, step) in enumerate(zip(lines, steps, strict=True)):
        first = number == 0
        assert line["loss"] == pytest.approx(step["loss"], rel=2e-6 if first else 5e-5)
        assert line["grad_norm"] == pytest.approx(step["grad_norm_before_clip"], rel=1e-4)
        for name in ("logps/chosen", "logps/rejected"):
            assert line[name] == pytest.approx(step[name], rel=2e-6 if first else 2e-5)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
            assert line[name] == pytest.approx(step[name], abs=5e-4)
        assert line["delta"] == pytest.approx(step["bco/delta_running_mean"], abs=5e-4)
        assert line["rewards/accuracies"] == step["rewards/accuracies"]


def require_equal_changes(final: dict, initial: dict, change_norms: dict[str, float], checkpoint) -> None:
    """Compare the changes of the weights with upstream's."""
    after, before = (upstream_tensors(weights, checkpoint) for weights in (final, initial))
    for name, change in change_norms.items():
        tolerance = 1e-2 if name.endswith("k_proj.bias") else 2e-3  # softmax cancels nearly all of that gradient
        assert np.linalg.norm(after[name] - before[name]) == pytest.approx(change, rel=tolerance), name


class KilledError(Exception):
    """Stands for a kill -9."""


class Dying(list):
    """Pairs of which one kills the run."""

    def __getitem__(self, i):
        if i == 5:
            raise KilledError
        return super().__getitem__(i)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Six pairs of the golden run."""
    return list(pairs_of(tmp_path_factory.mktemp("pairs"), golden_items()[:6]))


def run(output, pairs, **changes):
    """Weights and metrics of a LoRA run of three steps of two micro-batches."""
    config = {**CONFIG, **ADAPTERS, "max_steps": 3, "gradient_accumulation_steps": 2, "save_steps": 1, **changes}
    config |= {"save_strategy": "steps", "output_dir": str(output)}
    model = train(config, model=load(), dataset=pairs, method="mpo")
    return values(model), [{**line, "seconds": 0} for line in metrics_of(output)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, short):
    """Weights and metrics of an uninterrupted run."""
    return run(tmp_path_factory.mktemp("straight"), short)


def test_a_resumed_run_has_the_running_mean_and_the_reference_of_the_whole_run(straight, short, tmp_path):
    weights, lines = straight
    assert len({line["delta"] for line in lines}) == 3
    with pytest.raises(KilledError):
        run(tmp_path / "killed", Dying(short))
    mark = checkpoint_folders.read_mark(tmp_path / "killed/checkpoint-2")
    assert mark["loss"]["running_mean"][1] == 4
    resumed, resumed_lines = run(tmp_path / "killed", short)
    assert resumed_lines == lines
    assert all((resumed[name] == value).all() for name, value in weights.items())
    with pytest.raises(ValueError, match=r"run with beta=0.1, this run has 0.2; give"):
        run(tmp_path / "killed", short, beta=0.2)


def test_stored_log_probabilities_take_the_place_of_the_reference_model(straight, short, tmp_path):
    file = tmp_path / "reference.jsonl"
    _, stored = run(tmp_path / "made", short, reference_log_probs=str(file))
    for expected, line in zip(straight[1], stored, strict=True):
        assert line == pytest.approx(expected, rel=1e-6, abs=1e-6)
    whole = file.read_bytes()
    assert whole.count(b"\n") == 1 + len(short)
    file.write_bytes(whole[: len(whole) * 2 // 3])  # as of a run that was killed
    assert run(tmp_path / "completed", short, reference_log_probs=str(file))[1] == stored
    assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())
    with pytest.raises(ValueError, match="was made with max_dynamic_patch=None, this run has 2; delete it"):
        run(tmp_path / "other", short, reference_log_probs=str(file), max_dynamic_patch=2)
    swapped = [{**short[0], "chosen": short[0]["rejected"]}, *short[1:]]
    with pytest.raises(ValueError, match="reference.jsonl has other answers for pairs line 1; delete it"):
        run(tmp_path / "other", swapped, reference_log_probs=str(file))


def test_the_reference_of_a_lora_run_is_the_base_model_and_shares_its_weights(short):
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2)
    reference = FrozenReference(model)
    with paddle.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.set_value(paddle.randn(parameter.shape) * 0.1)
        batch = collate(short[:3])
        expected = answer_log_probs(load().eval(), batch).numpy()
        moved = answer_log_probs(model.eval(), batch).numpy()
    np.testing.assert_allclose(reference.log_probs(batch).numpy(), expected, rtol=1e-6)
    assert reference.log_probs(batch).stop_gradient
    plain = load()  # whose tower is trained, too
    set_drop_path(plain, 0.0)
    plain.train()
    start = answer_log_probs(plain, batch).numpy()
    np.testing.assert_array_equal(FrozenReference(plain).log_probs(batch).numpy(), start)
    assert np.abs(moved - expected).min() > 0.1
    policy = dict(model.named_parameters())
    assert all((p is policy[name]) == (".lora_" not in name) for name, p in reference.model.named_parameters())
    nll = -expected[:2].sum() / answer_tokens(collate(short[:2]))[:2].sum()
    assert nll == pytest.approx(7.48565, abs=1e-5)  # upstream's at batch 2
    singles = np.concatenate([answer_log_probs(load().eval(), collate([pair])).numpy() for pair in short[:3]])
    np.testing.assert_allclose(np.sort(expected), np.sort(singles), rtol=2e-6)  # pairs of several pictures and of none


def test_skipped_pairs_and_faults(tmp_path):
    items = golden_items()[:2]
    items[1] = {**items[1], "chosen": ""}
    meta = write_meta(tmp_path, items)
    config = {
        **CONFIG,
        **DATA,
        **ADAPTERS,
        "max_steps": 2,
        "on_bad_sample": "skip",
        "output_dir": str(tmp_path / "out"),
    }
    train({**config, "meta_path": str(meta)}, model=load(), method="mpo")
    first, second = metrics_of(tmp_path / "out")
    assert second["loss"] == 0 and "delta" not in second and first["loss"] > 0
    clips = {"video": "vid2.gif", "question": "<video>\na?", "chosen": "a", "rejected": "b"}
    meta = write_meta(tmp_path, [clips])
    with pytest.raises(ValueError, match="frames of the clips of data set pairs are random"):
        stored = {"reference_log_probs": str(tmp_path / "reference.jsonl"), "output_dir": str(tmp_path / "clips")}
        train({**config, **stored, "meta_path": str(meta)}, model=load(), method="mpo")
    with pytest.raises(ValueError, match="use_packed_ds: preference pairs are not packed"):
        Recipe.from_dict({"use_packed_ds": True, "max_steps": 1}, "mpo")
    with pytest.raises(ValueError, match="'beta' is an argument of --method mpo"):
        Recipe.from_dict({"beta": 0.1})
