"""Parts that are published alone, through the same Auto classes: a vision tower, an InternLM2."""

import json
import shutil

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from safetensors.numpy import load_file, save_file

from convert.streaming import convert
from paddle_internvl import InternLM2ForCausalLM, InternVisionConfig, InternVisionModel
from tests.random_checkpoints import TOKENIZER_FILES, random_pixels, tiny_config


def part(hf_folders, case, prefix, config, folder):
    """A folder with the tensors of one part under their own names, as OpenGVLab and InternLM publish them."""
    folder.mkdir()
    arrays = load_file(hf_folders[case] / "model.safetensors")
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "float32"}))
    return folder


@pytest.fixture
def vision_folder(hf_folders, tmp_path):
    config = tiny_config("dynamic_gqa")["vision_config"]
    return part(hf_folders, "dynamic_gqa", "vision_model.", config, tmp_path / "vision")


@pytest.fixture
def language_folder(hf_folders, tmp_path):
    config = tiny_config("dynamic_gqa")["llm_config"]
    folder = part(hf_folders, "dynamic_gqa", "language_model.", config, tmp_path / "language")
    for name in TOKENIZER_FILES:
        shutil.copyfile(hf_folders["dynamic_gqa"] / name, folder / name)
    return folder


def test_vision_tower_alone(vision_folder, models, tmp_path):
    assert type(AutoConfig.from_pretrained(str(vision_folder))) is InternVisionConfig
    model = AutoModel.from_pretrained(str(vision_folder), dtype="float32", trust_remote_code=True)
    assert type(model) is InternVisionModel
    pixels = paddle.to_tensor(random_pixels(2, 56))
    with paddle.no_grad():
        expected = models["dynamic_gqa"].vision_model(pixels).last_hidden_state.numpy()
        np.testing.assert_array_equal(model(pixels).last_hidden_state.numpy(), expected)
        convert(vision_folder, tmp_path / "pd", to_paddle=True)
        model.save_pretrained(str(tmp_path / "saved"))
        for folder in (tmp_path / "pd", tmp_path / "saved"):
            again = AutoModel.from_pretrained(str(folder))
            np.testing.assert_array_equal(again(pixels).last_hidden_state.numpy(), expected)
    convert(tmp_path / "pd", tmp_path / "back", to_paddle=False)
    one, other = (load_file(folder / "model.safetensors") for folder in (vision_folder, tmp_path / "back"))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_internlm2_alone(language_folder, models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(str(language_folder), torch_dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(str(language_folder))
    assert type(model) is InternLM2ForCausalLM
    inputs = tokenizer("What color is the circle?", return_tensors="pd")
    whole = models["dynamic_gqa"]
    with paddle.no_grad():
        logits = model(inputs["input_ids"]).logits
        np.testing.assert_array_equal(logits.numpy(), whole(input_ids=inputs["input_ids"]).logits.numpy())
    ids, scores = model.generate(**inputs, max_new_tokens=6, eos_token_id=9999)
    expected = whole.generate(input_ids=inputs["input_ids"], max_new_tokens=6, eos_token_id=9999, log_probs=True)
    assert ids.tolist() == expected[0].tolist()
    np.testing.assert_allclose(scores.numpy(), expected[1].numpy().mean(axis=1, keepdims=True), rtol=1e-6)
    model.save_pretrained(str(tmp_path / "saved"))
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "saved"))
    assert again.generate(**inputs, max_new_tokens=6, eos_token_id=9999)[0].tolist() == ids.tolist()
    assert AutoTokenizer.from_pretrained(str(tmp_path / "saved")).get_vocab() == tokenizer.get_vocab()


def test_internlm2_learns(language_folder):
    model = AutoModel.from_pretrained(str(language_folder), trainable=True)
    ids = paddle.to_tensor([[1, 7, 8, 9]])
    output = model(ids, labels=ids)
    output.loss.backward()
    assert model.lm_head.weight.grad is not None
    loss, _ = model(ids, labels=ids, return_dict=False)
    assert float(loss) == pytest.approx(float(output.loss))


def test_scores_are_means_over_lengths(language_folder, monkeypatch):
    """A token that is certain has log-probability 0, and counts."""
    model = AutoModel.from_pretrained(str(language_folder))
    ids, log_probs = np.array([[5, 6, 7], [8, 2, 0]]), np.array([[0.0, -3.0, 0.0], [-1.0, 0.0, 0.0]])
    monkeypatch.setattr("paddle_internvl.generation.batch.generate_ids", lambda *_: (ids, log_probs))
    _, scores = model.generate(paddle.to_tensor([[1, 5]] * 2), max_new_tokens=3, eos_token_id=2)
    np.testing.assert_allclose(scores.numpy(), [[-1.0], [-0.5]])
