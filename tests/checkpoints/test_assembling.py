"""Assembling: parts bit for bit, new tokens, a new projector, resized positions, and folders that load by AutoModel."""

import json
from pathlib import Path

import numpy as np
import pytest
from paddlenlp.transformers import AutoModel, AutoTokenizer
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from paddle_internvl.checkpoints.assembling import assemble, resize
from paddle_internvl.models.vision import resize_positions
from paddle_internvl.prompt.special_tokens import ADDED
from tests.random_checkpoints import TOKENIZER, random_checkpoint, tiny_config

TOWER, DECODER = "vision_model.", "language_model."


def decoder_folder(folder: Path, case: str, vocabulary: int, dtype: str = "float32") -> Path:
    """A language model alone, as its publisher leaves it: without InternVL's tokens."""
    llm = {**tiny_config(case)["llm_config"], "vocab_size": vocabulary, "torch_dtype": dtype}
    random_checkpoint(folder, llm)
    (folder / "added_tokens.json").unlink()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((folder / name).read_text())
        rows = content.get("added_tokens_decoder", {})
        for index in [index for index, row in rows.items() if row["content"] in ADDED]:
            del rows[index]
        content["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
        (folder / name).write_text(json.dumps(content))
    return folder


def arrays(folder) -> dict[str, np.ndarray]:
    """Parameters of a folder, loaded as float32."""
    model = AutoModel.from_pretrained(str(folder), dtype="float32", trainable=True)
    return {name: parameter.numpy() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory, hf_folders):
    """A model of one member's tower and another family's language model, alone and with a padded vocabulary."""
    root = tmp_path_factory.mktemp("assembled")
    decoder = decoder_folder(root / "decoder", "llama", 1100)
    assemble(root / "model", hf_folders["qwen2"], decoder, template="internvl2_5", use_thumbnail=True, seed=3)
    return root / "model", decoder


def test_parts_are_taken_bit_for_bit(assembled, hf_folders):
    model, source = arrays(assembled[0]), arrays(hf_folders["qwen2"])
    tower = {name for name in model if name.startswith(TOWER)}
    assert tower and all((model[name] == source[name]).all() for name in tower)
    decoder = load_file(assembled[1] / "model.safetensors")
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.k_proj.weight"):
        assert (model[DECODER + name] == decoder[name].T).all()
    assert (model[f"{DECODER}model.norm.weight"] == decoder["model.norm.weight"]).all()


def test_new_tokens_have_the_mean_of_the_other_rows(assembled):
    """And ids behind the tokenizer's, as transformers adds them; rows beyond them are cut off."""
    folder, decoder = assembled
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    whole = AutoTokenizer.from_pretrained(str(TOKENIZER))
    assert tokenizer.get_vocab() == whole.get_vocab()
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img> a <ref>dog</ref><|im_end|>"
    assert tokenizer(text)["input_ids"] == whole(text)["input_ids"]
    model, source = arrays(folder), load_file(decoder / "model.safetensors")
    rows, new = len(whole.get_vocab()), len(ADDED)
    tables = {
        "model.embed_tokens.weight": model[f"{DECODER}model.embed_tokens.weight"],
        "lm_head.weight": model[f"{DECODER}lm_head.weight"].T,
    }
    for name, table in tables.items():
        assert len(table) == rows < len(source[name])
        assert (table[:-new] == source[name][: rows - new]).all()
        np.testing.assert_allclose(table[-new:], np.tile(source[name][: rows - new].mean(axis=0), (new, 1)), atol=1e-6)


def test_a_new_projector_has_pytorch_s_initial_values(assembled):
    model = arrays(assembled[0])
    assert (model["mlp1.0.weight"] == 1).all() and (model["mlp1.0.bias"] == 0).all()
    for layer in ("mlp1.1", "mlp1.3"):
        bound = len(model[f"{layer}.weight"]) ** -0.5
        for kind in ("weight", "bias"):
            values = model[f"{layer}.{kind}"]
            assert np.abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / 3**0.5, rel=0.25)


def test_config_and_answers(assembled):
    model = AutoModel.from_pretrained(str(assembled[0]))
    config = model.config
    assert (config.template, config.use_thumbnail, config.ps_version) == ("internvl2_5", True, "v2")
    assert (config.force_image_size, config.llm_config.architectures) == (56, ["LlamaForCausalLM"])
    picture = {"type": "image", "image": TOKENIZER.parents[1] / "assets/two.png"}
    message = {"role": "user", "content": [picture, {"type": "text", "text": "what?"}]}
    assert model.chat_messages([message], {"max_new_tokens": 2}).generate_token_len


def test_positions_are_resized(hf_folders, tmp_path):
    """A whole model with another tile side: the weights that `force_image_size` would compute at every call."""
    resize(tmp_path / "large", hf_folders["qwen2"], force_image_size=112)
    before = AutoModel.from_pretrained(str(hf_folders["qwen2"]), trainable=True)
    after = AutoModel.from_pretrained(str(tmp_path / "large"), trainable=True)
    table = before.vision_model.embeddings.position_embedding
    assert (after.vision_model.embeddings.position_embedding == resize_positions(table, 8, 8)).all()
    assert (after.num_image_token, after.config.vision_config.image_size) == (4 * before.num_image_token, 112)
    changed = {n for n, p in after.named_parameters() if not np.array_equal(p, dict(before.named_parameters())[n])}
    assert changed == {"vision_model.embeddings.position_embedding"}


def test_a_projector_of_a_file_or_folder(hf_folders, tmp_path):
    """Upstream's state dict of `mlp1`, as safetensors; one of other widths is refused."""
    source = load_file(hf_folders["qwen2"] / "model.safetensors")
    mlp1 = {n.removeprefix("mlp1."): np.ascontiguousarray(v) for n, v in source.items() if n.startswith("mlp1.")}
    save_file(mlp1, tmp_path / "mlp.safetensors")
    parts = hf_folders["qwen2"], hf_folders["qwen2"]
    for name, path in (("file", tmp_path / "mlp.safetensors"), ("folder", hf_folders["qwen2"])):
        assemble(tmp_path / name, *parts, path, template="Hermes-2")
        model = arrays(tmp_path / name)
        assert all((model[f"mlp1.{n}"] == (v.T if v.ndim == 2 else v)).all() for n, v in mlp1.items())
    with pytest.raises(CheckpointError, match=r"mlp1.1.weight has shape .*, these parts need .*; leave mlp_path out"):
        assemble(tmp_path / "other", parts[0], hf_folders["llama"], parts[0], template="Hermes-2")


def test_parts_that_are_none(hf_folders, tmp_path):
    decoder = decoder_folder(tmp_path / "decoder", "llama", 999, "bfloat16")
    with pytest.raises(CheckpointError, match="holds no vision_model: its config.json has model_type 'llama'"):
        assemble(tmp_path / "out", decoder, decoder, template="Hermes-2")
    with pytest.raises(CheckpointError, match="the tokenizer has 1000 tokens, the embedding 999 rows"):
        assemble(tmp_path / "out", hf_folders["qwen2"], decoder, template="Hermes-2")
    with pytest.raises(ValueError, match="ps_version='v9'"):
        assemble(tmp_path / "out", hf_folders["qwen2"], hf_folders["qwen2"], template="Hermes-2", ps_version="v9")
    assert not (tmp_path / "out").exists()
