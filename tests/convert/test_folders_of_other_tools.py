"""Folders as PEFT, ms-swift, PaddleMIX and PaddleNLP write them: read as their plain twin, or one clear error."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.folder import read_config
from convert.mappings import rules_for
from convert.safetensors_io import Checkpoint
from paddle_internvl.checkpoints.folder_checks import chat_folder
from paddle_internvl.checkpoints.merging import adapted_view, base_and_adapter

BLOCK = "language_model.model.layers.0."
WQKV, DOWN, MLP1, HEAD = f"{BLOCK}attention.wqkv", f"{BLOCK}feed_forward.w2", "mlp1.1", "language_model.output"
RANK, ALPHA = 2, 4
OF_TRAINERS = {  # files that trainers leave beside the weights
    "args.json": "{}", "additional_config.json": '{"lora_dtype": null}', "trainer_state.json": "{}", "README.md": "",
    "training_args.bin": "a pickle", "optimizer.pt": "a pickle", "rng_state.pth": "a pickle",
}  # fmt: skip


def matrices(layer: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A [r, in] and B [out, r] of a layer."""
    draw = np.random.default_rng(len(layer))
    return tuple(draw.normal(0, 0.1, s).astype(np.float32) for s in ((RANK, shape[1]), (shape[0], RANK)))


class FolderMaker:
    """Makes folders from a checkpoint in upstream's layout.

    Args:
        source: the checkpoint.
        root: of the new folders.
    """

    def __init__(self, source: Path, root: Path):
        self.source, self.root = source, root
        self.tensors = load_file(source / "model.safetensors")

    def plain(self, name: str, tensors: dict, config: dict | None = None, metadata=None, files=None) -> Path:
        """A whole folder with other tensors, and with fields of the config replaced."""
        folder = self.root / name
        shutil.copytree(self.source, folder)
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, folder / "model.safetensors", metadata)
        fields = {**json.loads((folder / "config.json").read_text()), **(config or {})}
        (folder / "config.json").write_text(json.dumps(fields))
        self.write(folder, files or {})
        return folder

    def adapter(
        self, name: str, layers: tuple[str, ...], prefix: str = "base_model.model.", whole=(), **config
    ) -> Path:
        """PEFT's folder of an adapter."""
        folder = self.root / name
        folder.mkdir()
        fields = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": str(self.source)}
        (folder / "adapter_config.json").write_text(json.dumps({**fields, "bias": "none", **config}))
        tensors = {f"base_model.model.{name}": 2 * self.tensors[name] for name in whole}
        for layer in layers:
            for kind, matrix in zip("AB", matrices(layer, self.tensors[f"{layer}.weight"].shape)):
                tensors[f"base_model.model.{layer}.lora_{kind}.weight"] = matrix
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    def merged(self, layers: tuple[str, ...], whole=()) -> dict[str, np.ndarray]:
        """Upstream's tensors with an adapter merged."""
        tensors = {name: 2 * value if name in whole else value for name, value in self.tensors.items()}
        for layer in layers:
            a, b = matrices(layer, tensors[f"{layer}.weight"].shape)
            tensors[f"{layer}.weight"] = tensors[f"{layer}.weight"] + ALPHA / RANK * b @ a
        return tensors

    def unmerged(self, layers: tuple[str, ...], wrapper) -> dict[str, np.ndarray]:
        """Tensors of a wrapped model, under the names that `wrapper` makes."""
        tensors = {}
        for name, value in self.tensors.items():
            layer = name.removesuffix(".weight")
            tensors[wrapper(f"{layer}.base_layer.weight" if layer in layers else name)] = value
        for layer in layers:
            for kind, matrix in zip("AB", matrices(layer, self.tensors[f"{layer}.weight"].shape)):
                tensors[wrapper(f"{layer}.lora_{kind}.default.weight")] = matrix
        return tensors

    def write(self, folder: Path, files: dict[str, str]) -> Path:
        """Write text files into a folder."""
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder


@pytest.fixture
def maker(hf_folders, tmp_path) -> FolderMaker:
    return FolderMaker(hf_folders["dynamic_gqa"], tmp_path)


def arrays(folder: Path, adapter: Path | None = None) -> dict[str, np.ndarray]:
    """Every tensor under our names, as loading reads it."""
    base, own = base_and_adapter(chat_folder(folder))
    view = adapted_view(Checkpoint(base), read_config(base), adapter or own)
    return {name: view.floats(name) for name in view.outputs}


def wrapped(name: str) -> str:
    """Upstream's name of a tensor of the wrapped language model."""
    return name.replace("language_model.", "language_model.base_model.model.")


def peft(w: FolderMaker):
    return w.source, w.adapter("adapter", (WQKV, DOWN)), w.merged((WQKV, DOWN))


def peft_of_the_language_model(w: FolderMaker):
    adapter = w.adapter("adapter", (WQKV, DOWN))
    tensors = load_file(adapter / "adapter_model.safetensors")
    short = {name.replace("language_model.", ""): value for name, value in tensors.items()}
    save_file(short, adapter / "adapter_model.safetensors")
    return w.source, adapter, w.merged((WQKV, DOWN))


def peft_with_modules_to_save(w: FolderMaker):
    whole = ("mlp1.0.weight", "mlp1.1.weight", f"{HEAD}.weight")
    adapter = w.adapter("adapter", (WQKV,), whole=whole, modules_to_save=["mlp1.0", "mlp1.1", "output"])
    return w.source, adapter, w.merged((WQKV,), whole)


def upstream_unmerged(w: FolderMaker):
    folder = w.plain("model", w.unmerged((WQKV, DOWN), wrapped), {"use_llm_lora": RANK}, files=OF_TRAINERS)
    return folder, None, w.merged((WQKV, DOWN))


def swift_full(w: FolderMaker):
    return w.plain("model", w.tensors, {"architectures": None}, {"format": "pt"}, OF_TRAINERS), None, w.tensors


def swift_lora(w: FolderMaker):
    """A regex of targets, and a base model in the cache of another machine, which --adapter does not need."""
    adapter = w.adapter(
        "adapter", (WQKV, DOWN), modules_to_save=[], target_modules=r"^(language_model(?=\.).*\.(wqkv|wo|w1|w2|w3))$",
        base_model_name_or_path="/root/.cache/modelscope/hub/models/OpenGVLab/InternVL2_5-1B", rank_pattern={},
        eva_config=None, lora_bias=False, exclude_modules=None, use_dora=False, use_rslora=False,
    )  # fmt: skip
    return w.source, w.write(adapter, OF_TRAINERS), w.merged((WQKV, DOWN))


def swift_lora_with_aligner(w: FolderMaker):
    layers = (WQKV, MLP1, HEAD)
    return w.source, w.adapter("adapter", layers), w.merged(layers)


def paddlemix(w: FolderMaker):
    """Upstream's names, linear weights in Paddle's layout, PaddleNLP's metadata and names of fields."""
    rules = rules_for(read_config(w.source))
    linear = {n for rule in rules if rule.kind in ("Transpose", "Split") for n in rule.upstream}
    tensors = {n: t.T if n in linear and t.ndim == 2 else t for n, t in w.tensors.items()}
    return w.plain("model", tensors, {"dtype": "float32", "paddlenlp_version": None}, {"format": "np"}), None, w.tensors


def paddlenlp_lora(w: FolderMaker):
    """Of a layer that is whole in upstream's model too."""
    adapter = w.root / "adapter"
    adapter.mkdir()
    (adapter / "lora_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    a, b = matrices(DOWN, w.tensors[f"{DOWN}.weight"].shape)
    ours = f"{BLOCK}mlp.down_proj.lora_"
    (adapter / "lora_model_state.pdparams").write_bytes(pickle.dumps({f"{ours}A": a.T, f"{ours}B": b.T}))
    return w.source, adapter, w.merged((DOWN,))


READ = [
    peft, peft_of_the_language_model, peft_with_modules_to_save, upstream_unmerged, swift_full, swift_lora,
    swift_lora_with_aligner, paddlemix, paddlenlp_lora,
]  # fmt: skip


@pytest.mark.parametrize("make", READ, ids=lambda make: make.__name__)
def test_it_is_read_as_its_plain_twin(maker, make):
    folder, adapter, tensors = make(maker)
    found, expected = arrays(folder, adapter), arrays(maker.plain("twin", tensors, metadata={"format": "pt"}))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def peft_unmerged(w: FolderMaker):
    """The state dict of the whole wrapped model, without the adapter's config."""
    names = w.unmerged((WQKV,), lambda name: f"base_model.model.{name}")
    return w.plain(
        "model", names
    ), r"the LoRA of .*wqkv has rank 2, which config.json does not name .* its alpha is open"


def peft_alone(w: FolderMaker):
    return w.adapter("adapter", (WQKV,)), r"is a LoRA adapter \(adapter_config.json\), not a whole model; merge it into"


def swift_lora_alone(w: FolderMaker):
    """With config.json beside it, but a base model of another machine."""
    adapter = w.adapter("adapter", (WQKV,), base_model_name_or_path="/root/.cache/OpenGVLab/InternVL2_5-1B")
    shutil.copy(w.source / "config.json", adapter)
    return adapter, "is a LoRA adapter of /root/.cache/OpenGVLab/InternVL2_5-1B, which does not exist here; name the"


def peft_pickle(w: FolderMaker):
    adapter = w.adapter("adapter", (WQKV,))
    shutil.copy(w.source / "config.json", adapter)
    shutil.copy(w.source / "tokenizer_config.json", adapter)
    shutil.copy(w.source / "tokenizer.model", adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    return adapter, "lacks adapter_model.safetensors; save the adapter as safetensors"


def peft_of_another_vocabulary(w: FolderMaker):
    """PEFT saves embedding and head where the vocabulary was resized."""
    adapter = w.adapter("adapter", (WQKV,), whole=(f"{HEAD}.weight",))
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: np.concatenate([t, t[:3]]) if "output" in n else t for n, t in tensors.items()}, file)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.model"):
        shutil.copy(w.source / name, adapter)
    return adapter, "output.weight has shape .*, the model .*; was the vocabulary resized"


def paddlemix_pickle(w: FolderMaker):
    folder = w.plain("model", w.tensors)
    (folder / "model.safetensors").rename(folder / "model_state.pdparams")
    return folder, r"holds weights of PaddleMIX or PaddleNLP \(model_state.pdparams\), a pickle"


REFUSED = [
    peft_unmerged, peft_alone, swift_lora_alone, peft_pickle, peft_of_another_vocabulary, paddlemix_pickle,
]  # fmt: skip


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_it_is_one_clear_error(maker, make):
    folder, message = make(maker)
    with pytest.raises(CheckpointError, match=message) as caught:
        arrays(folder)
    assert "\n" not in str(caught.value)
