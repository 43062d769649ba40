"""Memory of training: parameters counted, activations within 15 % of the measured, recipes on 80 GB cards."""

import json
import subprocess
import sys

import pytest

from convert.folder import read_config
from convert.mappings import paddle_config
from paddle_internvl.bench.random_checkpoint import shallow, write_random
from paddle_internvl.cli.main import main
from paddle_internvl.estimation import TrainPlan, estimate_training
from paddle_internvl.modeling import InternVLChatModel
from tests.estimation.measured_training import step_peak
from tests.random_checkpoints import ROOT, TOKENIZER
from tests.training.test_recipes import FILES, expected, parts

FULL, FROZEN_TOWER = {}, {"freeze_backbone": True}
LORA = {"freeze_backbone": True, "freeze_llm": True, "freeze_mlp": True, "use_llm_lora": 16}
PROJECTOR = {"freeze_backbone": True, "freeze_llm": True}
ONE_B = ROOT / "configs/internvl2_5-1b.json"
TOO_LARGE = {  # stage 1 keeps the weights that are not trained whole on every card
    ("2", "40b", "lora"), ("2", "76b", "lora"), ("2_5", "38b", "lora"), ("2_5", "78b", "lora"),
    ("2_5", "38b", "stage1"), ("2_5", "78b", "stage1"),
}  # fmt: skip


def small() -> dict:
    """A config of odd widths whose activations are larger than its weights."""
    config = shallow(json.loads(ONE_B.read_text()), 2)
    config["llm_config"] |= {"hidden_size": 192, "intermediate_size": 320, "num_attention_heads": 6, "vocab_size": 400}
    config["vision_config"] |= {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
    return config


@pytest.mark.parametrize(
    ("recipe", "length", "tiles"),
    [
        (FULL, 512, 1), (FROZEN_TOWER, 640, 0), (LORA, 640, 0), ({**FROZEN_TOWER, "recompute": True}, 640, 0),
        ({**PROJECTOR, "use_backbone_lora": 8}, 320, 1),
        ({"method": "mpo"}, 384, 1), ({**LORA, "method": "mpo"}, 320, 0),
    ],
)  # fmt: skip
def test_activations(recipe, length, tiles):
    hold_to_measurement(small(), recipe, length, tiles)


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_of_experts(recompute):
    config = small()
    config["llm_config"] |= {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 32, "num_experts": 8,
        "num_experts_per_tok": 6, "moe_intermediate_size": 128,
    }  # fmt: skip
    hold_to_measurement(config, {**FROZEN_TOWER, "freeze_mlp": True, "recompute": recompute}, 512, 0)


def hold_to_measurement(config: dict, recipe: dict, length: int, tiles: int) -> None:
    model = InternVLChatModel(InternVLChatModel.config_class.from_dict(paddle_config(config)))
    model.img_context_token_id = 399
    measured = step_peak(model, recipe, length, tiles)
    plan = TrainPlan.from_recipe(recipe, device="cpu", rows=1, length=length, tiles=tiles)
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[not parameter.stop_gradient] += parameter.size
    estimated = estimate_training(config, plan)
    assert estimated.trained == counts[True] and estimated.weights == 4 * sum(counts.values())
    assert 0.85 < (estimated.peak + estimated.reference) / measured < 1.15
    assert estimated.reference == 4 * counts[True] * ("method" in recipe)


def resident(folder, recipe: dict, length: int, tiles: int) -> tuple[int, int]:
    """Estimated and measured peak of the process."""
    command = [sys.executable, "-m", "tests.estimation.measured_training"]
    arguments = [str(folder), json.dumps(recipe), str(length), str(tiles)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plan = TrainPlan.from_recipe(recipe, device="cpu", rows=1, length=length, tiles=tiles)
    return estimate_training(paddle_config(read_config(folder)), plan).total, int(done.stdout.splitlines()[-1])


def test_peak_of_the_bundled_checkpoint():
    estimated, measured = resident(TOKENIZER, FROZEN_TOWER, 512, 2)
    assert 0.85 < estimated / measured < 1.15


@pytest.mark.soak
@pytest.mark.parametrize("recipe", [FROZEN_TOWER, LORA, PROJECTOR, {"freeze_llm": True, "recompute": True}])
def test_peak_of_1b_widths(recipe, tmp_path):
    folder = write_random(tmp_path / "hf", shallow(json.loads(ONE_B.read_text()), 2))
    estimated, measured = resident(folder, recipe, 768, 2)
    assert 0.85 < estimated / measured < 1.15


def test_recipes_on_80_gb_cards():
    large = set()
    for name, file in FILES.items():
        family, size, kind = parts(name)
        model = f"internvl{family}-{'llama3-' if size == '76b' else ''}{size}"
        config = paddle_config(read_config(ROOT / f"configs/{model}.json"))
        cards = expected(name)[1]
        estimated = estimate_training(config, TrainPlan.from_recipe(json.loads(file.read_text()), gpus=cards))
        if estimated.total > 80 << 30:
            large.add((family, size, kind))
    assert large == TOO_LARGE


def test_large_adapters_fit_in_8_bits():
    config = paddle_config(read_config(ROOT / "configs/internvl2_5-38b.json"))
    recipe = json.loads(FILES["internvl2_5_38b_dynamic_res_2nd_finetune_lora"].read_text())
    floats, eight = (
        estimate_training(config, TrainPlan.from_recipe({**recipe, "load_in_8bit": on}, gpus=2)) for on in (False, True)
    )
    blocks = 64 * (5120 * (2 * 5120 + 2 * 1024) + 3 * 5120 * 27648)  # of Qwen2.5-32B
    assert floats.weights - eight.weights == pytest.approx(blocks, rel=1e-3)
    assert eight.total < 80 << 30 and eight.trained == floats.trained


def test_sharding_divides():
    config = paddle_config(read_config(ONE_B))
    alone, *stages = (estimate_training(config, TrainPlan(gpus=4, sharding=n, length=4096)) for n in range(4))
    assert [each.optimizer for each in stages] == [alone.optimizer // 4] * 3
    assert [each.gradients * 4 // alone.gradients for each in stages] == [4, 1, 1]
    shards = alone.weights // 4
    assert [each.weights for each in stages] == [alone.weights, alone.weights + shards, shards]
    assert stages[1].activations > stages[0].activations  # whole gradients
    assert stages[2].activations == stages[1].activations + alone.weights
    plain, recomputed = (
        estimate_training(config, TrainPlan(gpus=4, sharding=n, length=4096, recompute=True)) for n in (0, 3)
    )
    assert 0 < recomputed.activations - plain.activations < alone.weights
    assert alone.optimizer == 12 * alone.trained and alone.gradients == 2 * alone.trained


def test_on_the_command_line(tmp_path, capsys):
    recipe = tmp_path / "run.json"
    recipe.write_text(
        json.dumps({**FROZEN_TOWER, "bf16": True, "per_device_train_batch_size": 4, "sharding": "stage1"})
    )
    call = ["estimate", str(ROOT / "configs/internvl2_5-8b.json"), "--train", str(recipe)]
    assert main([*call, "--gpus", "8", "--memory", "80", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["length"] == 8192 and document["plan"]["tiles"] == 13 and not document["fits"]
    size = document["bytes on each device"]
    assert (
        size["total"]
        == size["weights"] + size["optimizer"] + size["runtime"] + size["gradients and activations at once"]
    )
    assert "recompute True" in [each["change"] for each in document["would fit"]]
    assert main([*call, "--gpus", "8", "--context", "2048", "--tiles", "4", "--batch", "1", "--memory", "80"]) == 0
    shown = capsys.readouterr().out
    assert "on each of 8 cards: bfloat16 with float32 master weights, sharding stage1" in shown
    assert "fits into 80 GiB" in shown and "reference" not in shown
    assert main([*call, "--gpus", "8", "--method", "mpo", "--memory", "80", "--json"]) == 1
    pairs = json.loads(capsys.readouterr().out)
    copied = pairs["bytes on each device"]["reference"]  # of the language model and the projector, in bfloat16
    assert copied == 2 * pairs["trained parameters"] and pairs["plan"]["method"] == "mpo"
    assert main([*call, "--gpus", "8", "--method", "mpo", "--context", "2048", "--tiles", "4", "--batch", "1"]) == 0
    assert "micro-batch of 1 pairs, 2 x 2048 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tp", "2"], "--tp is not for --train"),
        (["--context", "512", "--tiles", "7"], "7 tiles are 1792 tokens, more than the 512 of a row"),
        (["--batch", "0"], "rows=0 is not above 0"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    assert main(["estimate", str(ONE_B), "--train", str(tmp_path / "run.json"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
