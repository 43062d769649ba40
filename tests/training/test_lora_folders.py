"""Adapter folders: PEFT's, PaddleNLP's and upstream's unmerged layout, read, written, loaded and merged."""

import json
import pickle

import numpy as np
import paddle
import pytest
from paddlenlp.peft import LoRAConfig, LoRAModel
from safetensors.numpy import load_file, save_file

from convert import CheckpointError
from convert.cli import main as convert_cli
from convert.dtypes import FLOATS
from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from paddle_internvl import AutoModel, InternVLChatModel
from paddle_internvl.checkpoints.merging import adapted_view, merge_adapter
from paddle_internvl.checkpoints.unmerged import write_unmerged
from paddle_internvl.cli.main import main
from paddle_internvl.parallel.shards import ShardSpec
from paddle_internvl.training.lora import add_lora, lora_layers, merge_lora
from paddle_internvl.training.lora_folders import load_adapter, save_adapter
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import set_trainable
from tests.training.goldens import CHECKPOINT
from tests.training.loop import internlm2_run
from tests.training.lora_runs import require_merged_run, unmerged_checkpoint
from tests.training.test_lora import fill, load
from tests.training.test_losses import batch_of

RUN = "lora_internlm2"
TARGETS = ["attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
PEFT = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": TARGETS, "bias": "none"}


def loss_of(model, batch=None) -> float:
    return float(sft_loss(model, batch_of("sft_multi") if batch is None else batch))


def peft_folder(folder, prefix: str = "base_model.model.language_model.", **fields):
    """The trained adapter of the golden run as PEFT saves it."""
    folder.mkdir(exist_ok=True)
    config = {**PEFT, "base_model_name_or_path": str(CHECKPOINT), **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    values = {
        name.replace("language_model.", prefix): np.ascontiguousarray(v)
        for name, v in internlm2_run(RUN).stored("final").items()
    }
    save_file(values, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def unmerged(tmp_path_factory):
    """Upstream's checkpoint of the golden run, as its Trainer saves it."""
    return unmerged_checkpoint(tmp_path_factory.mktemp("unmerged"), internlm2_run(RUN))


def require_merged(model) -> None:
    """The model is the golden run's, merged."""
    require_merged_run(model, internlm2_run(RUN))


@pytest.mark.parametrize(
    "prefix", ["base_model.model.language_model.", "base_model.model."], ids=["of the model", "of the language model"]
)
def test_peft_adapters_load_and_merge(tmp_path, prefix):
    folder = peft_folder(tmp_path / "adapter", prefix)
    require_merged(InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True, adapter=folder))
    model = load_adapter(load(), folder)
    assert {name for name, p in model.named_parameters() if not p.stop_gradient} == {
        name for name, _ in model.named_parameters() if ".lora_" in name
    }
    require_merged(merge_lora(model))


def test_upstream_s_unmerged_checkpoint_merges(unmerged, tmp_path, capsys):
    assert main(["merge-lora", str(unmerged), str(tmp_path / "out")]) == 0
    assert "21 layers merged" in capsys.readouterr().out
    require_merged(InternVLChatModel.from_pretrained(str(tmp_path / "out"), trainable=True))


def test_a_merged_folder_equals_loading_with_the_adapter(tmp_path):
    adapter = peft_folder(tmp_path / "adapter")
    assert main(["merge-lora", str(adapter), str(tmp_path / "out")]) == 0
    merged = InternVLChatModel.from_pretrained(str(tmp_path / "out"))
    loaded = InternVLChatModel.from_pretrained(str(CHECKPOINT), adapter=adapter)
    assert merged.config.to_dict() == loaded.config.to_dict()
    for (name, one), (_, other) in zip(merged.named_parameters(), loaded.named_parameters()):
        assert (one == other).all(), name
    assert merged.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


def test_merged_weights_of_part_of_a_fused_layer_convert_to_upstream_s_layout(tmp_path):
    """Also rounded to the base model's dtype; layers that no adapter is merged into keep their bytes."""
    model = add_lora(load(), use_llm_lora=2)
    fill(model)
    save_adapter(model, tmp_path / "whole", "paddlenlp")
    arrays = pickle.loads((tmp_path / "whole" / "lora_model_state.pdparams").read_bytes())
    kept = {name: value for name, value in arrays.items() if ".q_proj." in name}
    (tmp_path / "whole" / "lora_model_state.pdparams").write_bytes(pickle.dumps(kept))
    for dtype in ("float32", "bfloat16"):
        out, hf = tmp_path / dtype, tmp_path / f"{dtype}-hf"
        assert main(["merge-lora", str(tmp_path / "whole"), str(out), "--dtype", dtype]) == 0
        assert convert_cli(["pd2hf", "--src", str(out), "--dst", str(hf)]) == 0
        base, merged = Checkpoint(CHECKPOINT), Checkpoint(hf)
        for name in base.tensors:
            same = np.array_equal(base.array(name), merged.array(name))
            assert same != name.endswith("attention.wqkv.weight"), name
            assert same or merged.tensors[name].dtype == FLOATS[dtype]


@pytest.mark.parametrize("layout", ["peft", "paddlenlp"])
def test_saved_adapters_come_back(tmp_path, layout):
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=4, lora_alpha=8)
    fill(model)
    save_adapter(model, tmp_path, layout)
    weights = next(file for file in tmp_path.iterdir() if file.name.startswith(("adapter_model", "lora_model")))
    assert weights.stat().st_size < 4 * 40_000
    again = load_adapter(load(), tmp_path)
    ours, theirs = (dict(m.named_parameters()) for m in (model, again))
    assert ours.keys() == theirs.keys()  # a shared A is shared again
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert loss_of(again) == loss_of(model)
    config = next(file for file in tmp_path.iterdir() if file.name in ("adapter_config.json", "lora_config.json"))
    assert json.loads(config.read_text())["base_model_name_or_path"] == str(CHECKPOINT)


def test_a_saved_adapter_runs_by_its_folder(tmp_path, capsys):
    """`from_pretrained` and `chat` find the base model and merge the adapter."""
    model = add_lora(load(), use_llm_lora=4)
    fill(model)
    save_adapter(model, tmp_path)
    loaded = AutoModel.from_pretrained(str(tmp_path))
    assert loaded.checkpoint_folder.resolve() == CHECKPOINT.resolve()
    for name, parameter in merge_lora(model).named_parameters():
        np.testing.assert_allclose(dict(loaded.named_parameters())[name].astype("float32"), parameter, atol=1e-6)
    answers = []
    for folder in (tmp_path, CHECKPOINT):
        assert main(["chat", str(folder), "--question", "yes?", "--max-new-tokens", "4"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] != answers[1]


def test_ranks_of_the_towers_may_differ_in_peft_s_layout(tmp_path):
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2, lora_alpha=8)
    fill(model)
    save_adapter(model, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["r"], len(config["rank_pattern"]), config["alpha_pattern"]) == (4, 12, {})
    again = load_adapter(load(), tmp_path / "peft")
    assert {n: layer.scale for n, layer in lora_layers(again).items()} == {
        n: layer.scale for n, layer in lora_layers(model).items()
    }
    assert loss_of(again) == loss_of(model)
    with pytest.raises(CheckpointError, match="one rank and one alpha"):
        save_adapter(model, tmp_path / "paddlenlp", "paddlenlp")


def test_paddlenlp_runs_our_adapter(tmp_path):
    model = add_lora(load(), use_llm_lora=4)
    fill(model)
    save_adapter(model, tmp_path, "paddlenlp")
    theirs = LoRAModel.from_pretrained(load(), str(tmp_path))
    theirs.eval()
    assert loss_of(theirs.model) == pytest.approx(loss_of(model), rel=1e-6)


def test_an_adapter_of_paddlenlp_runs_here_and_in_peft_s_layout(tmp_path):
    """Of q and v alone, each with an A of its own: in upstream's fused layer their ranks add up."""
    theirs = LoRAModel(load(), LoRAConfig(target_modules=[r".*language_model.*(q|v)_proj"], r=2, lora_alpha=6))
    theirs.mark_only_lora_as_trainable()
    paddle.seed(0)
    for name, parameter in theirs.model.named_parameters():
        if name.endswith("lora_B"):
            parameter.set_value(paddle.randn(parameter.shape) * 0.1)
    theirs.eval()
    theirs.save_pretrained(str(tmp_path / "paddlenlp"))
    expected = loss_of(theirs.model)
    assert abs(expected - loss_of(load())) > 1e-4
    model = load_adapter(load(), tmp_path / "paddlenlp")
    assert loss_of(model) == pytest.approx(expected, rel=1e-6)
    save_adapter(model, tmp_path / "peft")
    matrices = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    stem = "base_model.model.language_model.model.layers.0.attention.wqkv.lora_"
    assert matrices[f"{stem}A.weight"].shape == (4, 64) and matrices[f"{stem}B.weight"].shape == (128, 4)
    for folder in ("paddlenlp", "peft"):
        merged = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True, adapter=tmp_path / folder)
        assert loss_of(merged) == pytest.approx(expected, rel=2e-6)


def test_shards_of_merged_weights_are_cut_from_the_whole(tmp_path):
    view = adapted_view(Checkpoint(CHECKPOINT), read_config(CHECKPOINT), peft_folder(tmp_path / "adapter"))
    for name in ("self_attn.v_proj", "mlp.down_proj"):
        name = f"language_model.model.layers.1.{name}.weight"
        whole = view.array(name).view(np.float32)
        assert view.dtype(name) == "F32"
        for axis in (0, 1):
            start, stop = whole.shape[axis] // 2, whole.shape[axis]
            cut = view.array(name, cut=ShardSpec(axis, start, stop, stop - start, stop)).view(np.float32)
            np.testing.assert_allclose(cut, np.take(whole, range(start, stop), axis), atol=1e-7)


class Runs:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return (print, ("code was run",))


REFUSED = [
    ({"use_dora": True}, "use_dora=True is not supported"),
    ({"peft_type": "IA3"}, "peft_type='IA3' is not supported"),
]


@pytest.mark.parametrize("fields, message", REFUSED)
def test_other_kinds_of_adapters_are_refused(tmp_path, fields, message):
    with pytest.raises(CheckpointError, match=message):
        load_adapter(load(), peft_folder(tmp_path / "adapter", **fields))


def test_adapters_that_do_not_fit_are_refused(tmp_path, capsys):
    folder = peft_folder(tmp_path / "adapter", "base_model.model.language_model.other.")
    with pytest.raises(CheckpointError, match="15 layers that the model has not: other.model.layers.0|15 layers"):
        load_adapter(load(), folder)
    file = peft_folder(tmp_path / "adapter") / "adapter_model.safetensors"
    matrices = load_file(file)
    first = "base_model.model.language_model.model.layers.0.attention.wo.lora_"
    save_file({**matrices, f"{first}A.weight": np.zeros((8, 32), np.float32)}, file)
    with pytest.raises(CheckpointError, match=r"wo.lora_A has shape \[8, 32\], the model \[8, 64\]"):
        load_adapter(load(), folder)
    save_file({name: value for name, value in matrices.items() if name != f"{first}B.weight"}, file)
    with pytest.raises(CheckpointError, match="one matrix of language_model.model.layers.0.attention.wo"):
        load_adapter(load(), folder)
    with pytest.raises(CheckpointError, match="nothing to merge"):
        merge_adapter(CHECKPOINT, tmp_path / "out")
    assert main(["merge-lora", str(peft_folder(folder, base_model_name_or_path=None)), str(tmp_path / "out")]) == 2
    assert "does not name its base model; give it with --base" in capsys.readouterr().err


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    (tmp_path / "lora_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    (tmp_path / "lora_model_state.pdparams").write_bytes(pickle.dumps({"a.lora_A": Runs()}))
    with pytest.raises(CheckpointError, match="print, which could run code"):
        load_adapter(load(), tmp_path)
    assert "code was run" not in capsys.readouterr().out


def test_weights_that_are_trained_beside_adapters_are_saved(tmp_path):
    """A projector, a head and a layer of the tower, as PEFT's `modules_to_save`; PaddleNLP's layout refuses them."""
    model = add_lora(load(), use_llm_lora=4)
    set_trainable(model, freeze_llm=True, freeze_backbone=True, unfreeze_vit_layers=-1, unfreeze_lm_head=True)
    fill(model)
    paddle.seed(1)
    trained = {n: p for n, p in model.named_parameters() if not p.stop_gradient and ".lora_" not in n}
    for parameter in trained.values():
        parameter.set_value(paddle.randn(parameter.shape) * 0.1)
    save_adapter(model, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    modules = ["language_model.output", "mlp1.0", "mlp1.1", "mlp1.3", "vision_model.encoder.layers.2"]
    assert config["modules_to_save"] == modules
    names = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert names["base_model.model.mlp1.1.weight"].shape == tuple(model.mlp1[1].weight.shape[::-1])
    loaded = AutoModel.from_pretrained(str(tmp_path / "peft"), trainable=True)
    for model_again in (load_adapter(load(), tmp_path / "peft"), loaded):
        parameters = dict(model_again.named_parameters())
        assert all((parameters[name] == parameter).all() for name, parameter in trained.items())
        assert loss_of(model_again) == pytest.approx(loss_of(model), rel=2e-6)
    with pytest.raises(CheckpointError, match="LoRA matrices alone, and .* was trained too"):
        save_adapter(model, tmp_path / "paddlenlp", "paddlenlp")


def test_layouts_come_and_go(tmp_path, unmerged, capsys):
    """PEFT -> upstream's unmerged -> PaddleNLP -> PEFT: the same matrices."""
    first = peft_folder(tmp_path / "adapter")
    places = {"unmerged": tmp_path / "unmerged", "paddlenlp": tmp_path / "paddlenlp", "peft": tmp_path / "peft"}
    source, base = first, []
    for layout, place in places.items():
        assert main(["merge-lora", str(source), str(place), "--layout", layout, *base]) == 0
        source, base = place, ["--base", str(CHECKPOINT)]
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, places["peft"]))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    ours, theirs = load_file(places["unmerged"] / "model.safetensors"), load_file(unmerged / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == value).all() for name, value in theirs.items())
    assert json.loads((places["unmerged"] / "config.json").read_text())["use_llm_lora"] == 8
    require_merged(AutoModel.from_pretrained(str(places["unmerged"]), trainable=True))


def test_the_unmerged_layout_of_another_alpha_and_of_both_towers(tmp_path):
    """Ranks differ by tower, the scale is not upstream's, and some layers have no adapter."""
    model = add_lora(load(), use_llm_lora=4, use_backbone_lora=2, lora_alpha=3)
    fill(model)
    save_adapter(model, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if ".wo." not in name and ".fc1." not in name}
    save_file(kept, file)
    assert write_unmerged(tmp_path / "adapter", tmp_path / "out") == 18 + 9
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["use_llm_lora"], config["use_backbone_lora"]) == (4, 2)
    whole, again = (AutoModel.from_pretrained(str(tmp_path / n), trainable=True) for n in ("adapter", "out"))
    for (name, one), (_, other) in zip(whole.named_parameters(), again.named_parameters()):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)


def test_the_config_of_training_goes_along(tmp_path):
    """Tile limits and template that the run set are those of the answers, merged or not."""
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True, max_dynamic_patch=3, use_thumbnail=False)
    fill(add_lora(model, use_llm_lora=2))
    save_adapter(model, tmp_path / "adapter")
    assert main(["merge-lora", str(tmp_path / "adapter"), str(tmp_path / "out")]) == 0
    loaded = InternVLChatModel.from_pretrained(str(CHECKPOINT), adapter=tmp_path / "adapter")
    for again in (loaded, *(AutoModel.from_pretrained(str(tmp_path / name)) for name in ("adapter", "out"))):
        assert (again.config.max_dynamic_patch, again.config.use_thumbnail) == (3, False)


def test_adapters_are_not_stacked(tmp_path, unmerged):
    """The second one would be saved as the base model's."""
    fill(model := add_lora(load(), use_llm_lora=2))
    save_adapter(model, tmp_path)
    for folder in (tmp_path, unmerged):
        again = AutoModel.from_pretrained(str(folder), trainable=True)
        with pytest.raises(ValueError, match=f"the adapter {folder} is merged in the model's weights; write a plain"):
            add_lora(again)
