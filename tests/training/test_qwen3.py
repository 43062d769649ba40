"""Qwen3, and Qwen3-MoE with its load-balancing loss, in training: losses, gradients, runs and decay groups of
InternVL3.5's own code."""

import numpy as np
import pytest

from paddle_internvl import InternVLChatConfig, InternVLChatModel
from paddle_internvl.models.internvl import InternVLNetwork
from paddle_internvl.training.collate import collate
from paddle_internvl.training.decay import decayed_parameters
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import set_drop_path, set_trainable
from tests.random_checkpoints import tiny_config
from tests.training.families import LATER, family_checkpoint
from tests.training.goldens import FOLDER, golden, relative_error, upstream_tensors
from tests.training.loop import GoldenRun, require_equal_steps, require_equal_weights, run_samples, train


@pytest.fixture(scope="module", params=LATER)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, family):
    return family_checkpoint(tmp_path_factory.mktemp("training") / family, family)


def arrays(family: str) -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / f"families/{family}.npz"))


def test_losses_and_gradients_are_upstream_s(folder, family):
    model = InternVLChatModel.from_pretrained(str(folder), trainable=True)
    set_drop_path(model, 0.0)
    model.train()
    samples = run_samples(folder)
    for name, chosen in (("sft", samples[:2]), ("sft_multi", samples[2:4])):
        expected = golden(f"families/{family}")["loss"][name]
        loss = sft_loss(model, collate(chosen))
        assert float(loss) == pytest.approx(expected["loss"], rel=1e-6)
        loss.backward()
        gradients = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
        found = upstream_tensors(gradients, folder)
        idle = {key for key, value in found.items() if ".experts." in key and not value.any()}  # torch has no gradient
        assert found.keys() - idle == expected["grad_norms"].keys() - idle
        for key, norm in expected["grad_norms"].items():
            tolerance = {"rel": 2e-5, "abs": 1e-6 * expected["grad_global_norm"]}
            assert np.linalg.norm(found[key]) == pytest.approx(norm, **tolerance), (name, key)
        for key, value in arrays(family).items():
            if key.startswith(f"{name}.grad."):
                assert relative_error(found[key.partition(".grad.")[2]], value) < 2e-5, (name, key)
        model.clear_gradients()


def test_a_run_is_upstream_s(folder, family):
    content = golden(f"families/{family}")["runs"]["full"]
    stored = {key.partition(".")[2]: value for key, value in arrays(family).items() if key.startswith("full.")}
    expected = GoldenRun(content, stored, run_samples(folder), folder)
    ours = train(expected, lambda model: set_trainable(model, freeze_backbone=True), "hf")
    require_equal_steps(ours, expected)
    require_equal_weights(ours, expected)
    without_decay = ours.initial.keys() - decayed_parameters(ours.model, "hf")
    named = upstream_tensors({name: ours.initial[name] for name in without_decay}, folder)
    assert named.keys() == set(content["without_decay"])
    assert {"q_norm", "k_norm"} < {name.split(".")[-2] for name in named}


def test_norms_of_the_large_tower_decay_but_for_q_and_k():
    """By transformers 4.55's patterns of names; InternViT-6B's norms are no LayerNorm."""
    config = tiny_config("qwen3")
    config["vision_config"] |= {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    model = InternVLNetwork(InternVLChatConfig.from_dict(config))
    decayed = decayed_parameters(model, "hf")
    layer = "vision_model.encoder.layers.0."
    assert {layer + "norm1.weight", layer + "norm2.weight", layer + "ls1"} < decayed
    assert not {layer + "attn.q_norm.weight", layer + "attn.k_norm.weight", "mlp1.0.weight"} & decayed
