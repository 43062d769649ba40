"""configs/train: each recipe has the values of upstream's shell script of the same name."""

import json
import re

import pytest

from paddle_internvl.training.recipe import Recipe
from paddle_internvl.training.trainer_arguments import require_supported
from tests.random_checkpoints import ROOT

FOLDER = ROOT / "configs/train"
NEWER = {
    file.stem: file for folder in ("internvl3.0", "internvl3_5_qwen3") for file in FOLDER.glob(f"{folder}/**/*.json")
}
ALL = {file.stem: file for file in FOLDER.rglob("*.json") if file.stem not in NEWER}
FILES = {name: file for name, file in ALL.items() if "_mpo" not in name}

# size -> full: cards, drop_path_rate, sharding; LoRA: cards; both: learning_rate, weight_decay
FINETUNE = {
    "1b": (8, 0.1, "stage1", 2, 4e-5, 0.01),
    "2b": (8, 0.1, "stage1", 2, 4e-5, 0.01),
    "4b": (8, 0.1, "stage1", 2, 4e-5, 0.01),
    "8b": (8, 0.1, "stage1", 2, 4e-5, 0.05),
    "26b": (8, 0.4, "stage3", 2, 2e-5, 0.05),
    "38b": (16, 0.4, "stage3", 2, 2e-5, 0.05),
    "40b": (16, 0.4, "stage3", 2, 2e-5, 0.05),
    "76b": (32, 0.4, "stage3", 8, 2e-5, 0.05),
    "78b": (32, 0.4, "stage3", 8, 2e-5, 0.05),
}
SIZES = {"2": ("1b", "2b", "4b", "8b", "26b", "40b", "76b"), "2_5": ("1b", "2b", "4b", "8b", "26b", "38b", "78b")}
TEMPLATES = {"1b": "Hermes-2", "40b": "Hermes-2", "4b": "phi3-chat"}  # of InternVL2; the other sizes: internlm2-chat
LENGTHS = {"2": 4096, "2_5": 8192}
FROZEN = {  # language model, vision tower, projector
    "full": (False, True, False), "lora": (True, True, True), "lora_coco": (True, True, True),
    "stage1": (True, True, False), "stage1_5": (True, False, False), "stage2": (False, False, False),
}  # fmt: skip
STEPS = {"1b": 22000, "2b": 22000, "4b": 11000}  # of stage 2; the larger: 5500
SHARED = {"bf16": True, "recompute": True, "lr_scheduler_type": "cosine", "decay_rule": "all", "logging_steps": 1,
          "dynamic_image_size": True, "use_thumbnail": True}  # fmt: skip
PACKED = {"use_packed_ds": True, "max_packed_tokens": 16384, "num_images_expected": 48, "max_buffer_size": 20,
          "loss_reduction": "square", "loss_reduction_all_gather": True, "strict_mode": False, "replacement": False,
          "allow_overflow": False, "max_seq_length": 16384, "group_by_length": False}  # fmt: skip


def parts(name: str) -> tuple[str, str, str]:
    """Family ('2' or '2_5'), size and kind of a recipe, from its name."""
    return re.fullmatch(r"internvl(2_5|2)_(\d+b)_.*?(full|lora|lora_coco|stage1|stage1_5|stage2)", name).groups()


def expected(name: str) -> tuple[dict, int, int]:
    """Values of the table, cards, and the batch of all cards."""
    family, size, kind = parts(name)
    cards, drop_path, sharding, lora_cards, rate, decay = FINETUNE[size]
    frozen = dict(zip(("freeze_llm", "freeze_backbone", "freeze_mlp"), FROZEN[kind]))
    # Paddle's stage 3 shards trained weights alone, so that stage 1 does for adapters and the projector.
    values = {**SHARED, **frozen, "weight_decay": decay, "sharding": "stage1" if FROZEN[kind][0] else sharding}
    if kind == "stage1_5":
        values["sharding"] = sharding
    if "stage" in kind:
        warmup = {"warmup_ratio": 0.03} if kind == "stage2" else {"warmup_steps": 100}
        values |= {**PACKED, **warmup, "conv_style": "internvl2_5"}
        values["learning_rate"] = {"stage1": 2e-4, "stage1_5": 1e-5, "stage2": rate}[kind]
        values["drop_path_rate"] = 0.0 if kind == "stage1" else drop_path
        values["max_steps"] = STEPS.get(size, 5500) if kind == "stage2" else 100000
        return values, 512, 1024 if kind == "stage1_5" else 512
    values |= {
        "learning_rate": rate, "warmup_ratio": 0.03, "num_train_epochs": 1, "max_dynamic_patch": 6,
        "group_by_length": True, "save_steps": 200, "save_total_limit": 1, "max_seq_length": LENGTHS[family],
        "conv_style": TEMPLATES.get(size, "internlm2-chat") if family == "2" else "internvl2_5",
    }  # fmt: skip
    if kind == "full":
        return {**values, "drop_path_rate": drop_path}, cards, 128
    rank, (cards, batch) = (128, (8, 512)) if kind == "lora_coco" else (16, (lora_cards, 16))
    return {**values, "drop_path_rate": 0.0, "use_llm_lora": rank}, cards, batch


def test_there_is_one_of_each_script():
    kinds = {(family, size, kind) for family, sizes in SIZES.items() for size in sizes for kind in ("full", "lora")}
    kinds |= {(family, "2b", "lora_coco") for family in SIZES}
    kinds |= {("2_5", size, stage) for size in SIZES["2_5"] for stage in ("stage1", "stage2")}
    kinds |= {("2_5", size, "stage1_5") for size in ("8b", "26b")}
    assert {parts(name) for name in FILES} == kinds and len(FILES) == len(kinds)


@pytest.mark.parametrize("name", FILES)
def test_values_are_upstreams(name):
    config = json.loads(FILES[name].read_text())
    values, cards, batch = expected(name)
    assert {key: config[key] for key in values} == values
    assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * cards == batch
    assert config["output_dir"].endswith(f"/{name}")


def test_stages_take_what_the_stage_before_wrote():
    folders = {json.loads(file.read_text())["output_dir"] for file in FILES.values()}
    for name, file in FILES.items():
        config = json.loads(file.read_text())
        if name.endswith("stage1"):
            assert {"vision_path", "llm_path"} <= config.keys()
        elif "stage" in name:
            assert config["model_name_or_path"] in folders
        else:
            assert re.fullmatch(r"OpenGVLab/InternVL2(_5)?-(Llama3-)?\d+B", config["model_name_or_path"])


def test_arguments_are_supported_on_several_cards():
    for name, file in FILES.items():
        recipe = Recipe.from_dict(json.loads(file.read_text()))
        require_supported(recipe.trainer, ranks=8)
        assert recipe.run.decay_rule == "all" and recipe.packing.use_packed_ds == ("stage" in name)


# preference optimisation; size -> cards and batch, drop_path_rate, sharding, save_strategy
MPO = {
    **dict.fromkeys(("1b", "2b", "4b", "8b"), (256, 0.1, "stage1", "no")),
    "26b": (256, 0.4, "stage3", "no"), "38b": (512, 0.4, "stage3", "steps"), "78b": (512, 0.4, "stage3", "steps"),
}  # fmt: skip
PREFERENCES = {"loss_type": "sigmoid,bco_pair", "sigmoid_loss_weight": 0.8, "bco_pair_loss_weight": 0.2, "rpo_alpha": 1,
               "beta": 0.1, "weight_decay": 0.05, "warmup_ratio": 0.03, "num_train_epochs": 1, "max_dynamic_patch": 12,
               "group_by_length": False, "per_device_train_batch_size": 1}  # fmt: skip


def test_preference_recipes_are_upstreams():
    names = {
        name: re.fullmatch(r"internvl(2_5|2)_(\d+b)_.*_dynamic_res_mpo(_full)?", name) for name in ALL.keys() - FILES
    }
    assert sorted(match[2] for match in names.values()) == sorted([*MPO, "8b"])
    for name, match in names.items():
        config = json.loads(ALL[name].read_text())
        first = match[1] == "2"
        cards, drop_path, sharding, saving = MPO[match[2]]
        values = {**SHARED, **PREFERENCES, "drop_path_rate": drop_path, "sharding": sharding, "save_strategy": saving}
        values |= {"learning_rate": 5e-6, "max_seq_length": 6144, "conv_style": "internlm2-chat"} if first else {
            "learning_rate": 1e-6, "max_seq_length": 8192, "conv_style": "internvl2_5"
        }  # fmt: skip
        assert {key: config[key] for key in values} == values
        assert config["model_name_or_path"] == f"OpenGVLab/InternVL{match[1]}-{match[2].upper()}"
        assert config["gradient_accumulation_steps"] * cards == (512 if match[2] in ("38b", "78b") else 256)
        assert config.pop("method") == "mpo"
        recipe = Recipe.from_dict(config, "mpo")
        require_supported(recipe.trainer, ranks=8)
        assert recipe.preference.weights == {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1}
        frozen = (recipe.model.freeze_llm, recipe.model.freeze_backbone, recipe.model.freeze_mlp)
        assert frozen == (False, False, False)


# InternVL3 and 3.5; size -> drop_path_rate; scripts of 3.5 state cards of one machine alone
THIRD = {"1b": 0.0, "2b": 0.0, "8b": 0.0, "9b": 0.0, "14b": 0.1, "38b": 0.2, "78b": 0.4}
QWEN3 = {"1b": 0.0, "2b": 0.0, "4b": 0.0, "8b": 0.1, "14b": 0.1, "38b": 0.4, "30b": 0.1, "241b": 0.4}
ACTIVE = {"30b": "-A3B", "241b": "-A28B"}
QWEN3_CARDS = {"38b": 64, "30b": 16, "241b": 256}  # the others: 8
VIDEO = {"min_num_frame": 8, "max_num_frame": 32}
QWEN3_SFT = {**PACKED, **VIDEO, "max_packed_tokens": 32768, "num_images_expected": 96, "max_seq_length": 32768,
             "replacement": True, "learning_rate": 8e-5, "max_steps": 8000, "save_steps": 500}  # fmt: skip


def newer(name: str) -> tuple[dict, str, int, int]:
    """Values of a recipe of InternVL3 or 3.5, its model, cards, and the batch of all cards."""
    generation, size, kind = re.fullmatch(r"internvl3(_5)?_(\d+b)_.*?(full|lora|mpo|sft)", name).groups()
    large = size in ("38b", "78b")
    member = f"OpenGVLab/InternVL3{generation or ''}-{size.upper()}{ACTIVE.get(size, '')}"
    values = {
        **SHARED,
        "conv_style": "internvl2_5",
        "max_dynamic_patch": 12,
        "warmup_ratio": 0.03,
        "weight_decay": 0.05,
    }
    if kind == "lora":  # no script of upstream's: those of 2.5, on longer samples
        finetune = FINETUNE.get({"9b": "8b", "14b": "8b", "30b": "38b"}.get(size, size))
        values |= {"use_llm_lora": 16, "sharding": "stage1", "max_seq_length": 16384, "drop_path_rate": 0.0}
        values |= {"learning_rate": finetune[4], "group_by_length": True}
        values["weight_decay"] = finetune[5]
        return values, member, 8 if size == "78b" else 2, 16
    values["drop_path_rate"] = (QWEN3 if generation else THIRD)[size]
    if kind == "mpo":
        values |= {**PREFERENCES, "learning_rate": 2e-7, "save_steps": 200}
        if generation:
            values |= {**VIDEO, "sharding": "stage3", "max_seq_length": 16384, "save_total_limit": 50}
            return values, f"{member}-Instruct", QWEN3_CARDS.get(size, 8), 256
        values |= {"drop_path_rate": 0.4 if large else 0.1, "max_seq_length": 8192 if large else 12288}
        values |= {"sharding": "stage1" if size in ("1b", "2b") else "stage3"}
        values |= {"save_strategy": "steps" if large else "no", "save_total_limit": 100}
        return values, f"{member}-Instruct", 512 if large else 256, 512 if large else 256
    if generation:
        values |= {**QWEN3_SFT, "sharding": "stage3", "per_device_train_batch_size": 1}
        values |= {"learning_rate": 2e-5} if size == "241b" else {}
        return values, f"{member}-Pretrained", QWEN3_CARDS.get(size, 8), 512
    values |= {"max_seq_length": 16384, "group_by_length": True, "learning_rate": 1e-5 if size == "1b" else 2e-5}
    values |= {"sharding": "stage3" if large else "stage1", "num_train_epochs": 1, "save_total_limit": 1}
    return values, member, {"38b": 16, "78b": 32}.get(size, 8), 128


def test_recipes_of_internvl3_and_3_5():
    for generation, sizes, without_lora in (("3", THIRD, 0), ("3_5", QWEN3, 1)):
        names = [name for name in NEWER if re.match(rf"internvl{generation}_\d+b_", name)]
        assert len(names) == 3 * len(sizes) - without_lora
        assert {re.search(r"_(\d+b)_", name)[1] for name in names} == sizes.keys()
    for name, file in NEWER.items():
        config = json.loads(file.read_text())
        values, model, cards, batch = newer(name)
        assert {key: config[key] for key in values} == values, name
        assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * cards == batch, name
        assert config["model_name_or_path"] == model
        recipe = Recipe.from_dict({k: v for k, v in config.items() if k != "method"}, config.get("method", "sft"))
        require_supported(recipe.trainer, ranks=8)
        frozen = (recipe.model.freeze_llm, recipe.model.freeze_backbone, recipe.model.freeze_mlp)
        expected = FROZEN["lora"] if "lora" in name else FROZEN["full"] if name.endswith("full") else (False,) * 3
        assert frozen == expected, name
