"""Folders as other tools leave them: transformers 5, PEFT, ms-swift, upstream's own LoRA training."""

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoModel, AutoTokenizer
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.cli import main as convert_cli
from paddle_internvl.serve.logprobs import token_bytes

TRANSFORMERS_5 = Path(__file__).parents[1] / "goldens/transformers5"  # saved by transformers 5.24.0, random weights
TINY = Path(__file__).parents[2] / "demo/checkpoints/internvl-tiny"


@pytest.fixture(scope="module")
def expected():
    """The forward pass and the tokenizer of transformers 5.24.0."""
    return json.loads((TRANSFORMERS_5 / "expected.json").read_text(encoding="utf-8"))


def test_transformers_5(expected):
    """`rope_parameters`, `dtype`, newer tensor names, and a `TokenizersBackend`."""
    model = AutoModel.from_pretrained(str(TRANSFORMERS_5), dtype="float32")
    assert model.config.llm_config.rope_theta == expected["rope_theta"]
    with paddle.no_grad():
        logits = model.language_model(input_ids=paddle.to_tensor([expected["ids"]])).numpy()[0]
    assert logits.argmax(-1).tolist() == expected["argmax"]
    np.testing.assert_allclose(logits[-1], expected["last_logits"], rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(str(TRANSFORMERS_5))
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(expected["text"])) == expected["text_ids"]


def test_transformers_5_converts(tmp_path, expected):
    assert convert_cli(["hf2pd", "--src", str(TRANSFORMERS_5), "--dst", str(tmp_path / "paddle")]) == 0
    model = AutoModel.from_pretrained(str(tmp_path / "paddle"), dtype="float32")
    with paddle.no_grad():
        logits = model.language_model(input_ids=paddle.to_tensor([expected["ids"]])).numpy()[0]
    assert logits.argmax(-1).tolist() == expected["argmax"]


@pytest.fixture
def tuned(tmp_path):
    """A copy of the bundled checkpoint, and a function that changes fields of its config.json."""
    folder = tmp_path / "tuned"
    shutil.copytree(TINY, folder)

    def change(**fields):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **fields}), encoding="utf-8")
        return folder

    return change


@pytest.mark.parametrize("architectures", [None, [], ["PeftModelForCausalLM"]])
def test_the_model_type_names_the_class(tuned, architectures):
    assert type(AutoModel.from_pretrained(str(tuned(architectures=architectures)))).__name__ == "InternVLChatModel"


def test_a_null_system_message_is_the_templates(tuned):
    """Every raw InternVL3 folder has one."""
    model = AutoModel.from_pretrained(str(tuned(system_message=None)))
    assert model.system_message == model.conv_template.system_message != ""
    assert AutoModel.from_pretrained(str(tuned(system_message=""))).system_message == ""


def test_rows_beyond_the_tokenizer_are_no_text(tuned):
    """An embedding that was padded to a round number of rows."""
    folder = tuned()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["llm_config"]
    tokens = config["vocab_size"]
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.tok_embeddings", "output"):
        weight = tensors[f"language_model.{name}.weight"]
        tensors[f"language_model.{name}.weight"] = np.concatenate([weight, weight[:7]])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tuned(llm_config={**config, "vocab_size": tokens + 7})
    model, tokenizer = AutoModel.from_pretrained(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    only_padding = {"bad_token_ids": tuple(range(tokens)), "max_new_tokens": 3, "logprobs": 1}
    response = model.chat_messages([{"role": "user", "content": "hello"}], only_padding)
    assert (response.text, response.generate_token_len) == ("", 3)
    assert tokenizer.decode([tokens, *tokenizer("hello")["input_ids"], 10**9]) == tokenizer.decode(
        tokenizer("hello")["input_ids"]
    )
    assert token_bytes(tokenizer, tokens) == b""


def test_a_token_without_a_row_is_refused(tuned):
    """A fine-tune's tokenizer beside weights that were not resized."""
    folder = tuned()
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["llm_config"]["vocab_size"]
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    config["added_tokens_decoder"][str(rows)] = {"content": "<new>", **flags}
    file.write_text(json.dumps(config), encoding="utf-8")
    model, tokenizer = AutoModel.from_pretrained(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    messages = [{"role": "user", "content": "hello <new>"}]
    message = f"'<new>' has id {rows}, but the model's embedding has {rows} rows"
    calls = (
        lambda: model.chat(tokenizer, None, "hello <new>", {}),
        lambda: model.chat_messages(messages),
        lambda: model.log_probs(messages, ["a"]),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert model.chat(tokenizer, None, "hello", {"max_new_tokens": 2})


@pytest.mark.parametrize("file", ["adapter_config.json", "lora_config.json"])
def test_an_adapter_alone_is_refused(tmp_path, file):
    (tmp_path / file).write_text("{}")
    for load in (AutoModel, AutoTokenizer):
        with pytest.raises(CheckpointError, match=rf"is a LoRA adapter \({file}\).*merge it into its base model"):
            load.from_pretrained(str(tmp_path))


def test_unmerged_lora_weights_are_merged_while_loading(tuned, tmp_path, capsys):
    """As upstream's own LoRA training leaves them; a conversion, which only moves bytes, refuses them."""
    folder = tuned(use_llm_lora=4)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("attention.wqkv.weight"))
    stem, weight = name.removesuffix("weight"), tensors.pop(name)
    tensors |= {f"{stem}base_layer.weight": weight, f"{stem}lora_A.default.weight": weight[:4].copy()}
    tensors[f"{stem}lora_B.default.weight"] = weight[:, :4].copy()
    save_file(tensors, folder / "model.safetensors")
    model, base = AutoModel.from_pretrained(str(folder), dtype="float32"), AutoModel.from_pretrained(str(TINY))
    assert model.config.use_llm_lora == 0
    changed = [
        name
        for name, parameter in model.named_parameters()
        if (parameter.astype("float32") != dict(base.named_parameters())[name].astype("float32")).any()
    ]
    assert {name.split(".")[-2] for name in changed} <= {"q_proj", "k_proj", "v_proj"} and changed
    assert convert_cli(["hf2pd", "--src", str(folder), "--dst", str(tmp_path / "out")]) == 2
    assert "unmerged LoRA weights; merge them" in capsys.readouterr().err


TEXT, VISION, TOP = "text_config", "vision_config", None
REFUSED = [  # fields of transformers that change the network in a way that is not implemented
    (TEXT, "mlp_bias", True, "llm_config.mlp_bias=True is not supported"),
    (TEXT, "partial_rotary_factor", 0.75, "llm_config.partial_rotary_factor=0.75 is not supported"),
    (TEXT, "layer_types", ["full_attention", "sliding_attention"], "layer_types='sliding_attention' is not supported"),
    (TEXT, "use_sliding_window", True, "llm_config.use_sliding_window=True is not supported"),
    (TEXT, "hidden_act", "gelu", "llm_config.hidden_act='gelu' is not supported"),
    (TEXT, "model_type", "mistral", "text_config.model_type is 'mistral'; supported"),
    (TEXT, "rope_parameters", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling.type='llama3' is not supported"),
    (
        TEXT,
        "rope_parameters",
        {"rope_type": "dynamic", "factor": 2.0, "attention_factor": 1.5},
        "rope_scaling.attention_factor=1.5 is not supported",
    ),
    (VISION, "use_mean_pooling", False, "vision_config.use_mean_pooling=False is not supported, only True"),
    (VISION, "use_absolute_position_embeddings", False, "use_absolute_position_embeddings=False is not supported"),
    (VISION, "hidden_act", "relu", "vision_config.hidden_act='relu' is not supported"),
    (VISION, "norm_type", "batch_norm", "vision_config.norm_type='batch_norm' is not supported"),
    (VISION, "image_size", [56, 28], "tiles and patches must be square"),
    (TOP, "vision_feature_layer", [-1, -2], "vision_feature_layer=.-1, -2. is not supported, only one layer"),
    (TOP, "vision_feature_select_strategy", "full", "vision_feature_select_strategy='full' is not supported"),
    (TOP, "projector_hidden_act", "relu", "projector_hidden_act='relu' is not supported, only 'gelu'"),
    (TOP, "downsample_ratio", 0.3, "downsample_ratio=0.3 is not supported"),
]
ACCEPTED = [  # fields that change nothing, or that the tensors decide
    (TEXT, "pretraining_tp", 2),
    (TEXT, "layer_types", ["full_attention"] * 2),
    (TEXT, "sliding_window", 1),  # no field of Llama's
    (TEXT, "use_cache", False),
    (TEXT, "partial_rotary_factor", 1.0),
    (TEXT, "tie_word_embeddings", True),  # the file has a head of its own
    (TOP, "tie_word_embeddings", True),
    (VISION, "attention_dropout", 0.0),
]


@pytest.fixture
def native(tmp_path):
    """A function that changes a field in a copy of the folder of transformers 5."""

    def change(part, name, value):
        folder = tmp_path / "native"
        shutil.copytree(TRANSFORMERS_5, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (config if part is None else config[part])[name] = value
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return str(folder)

    return change


@pytest.mark.parametrize(("part", "name", "value", "message"), REFUSED)
def test_fields_that_matter_are_refused(native, part, name, value, message):
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(native(part, name, value))


@pytest.mark.parametrize(("part", "name", "value"), ACCEPTED)
def test_fields_that_change_nothing(native, expected, part, name, value):
    model = AutoModel.from_pretrained(native(part, name, value), dtype="float32")
    with paddle.no_grad():
        logits = model.language_model(input_ids=paddle.to_tensor([expected["ids"]])).numpy()[0]
    np.testing.assert_allclose(logits[-1], expected["last_logits"], rtol=0, atol=1e-5)
