"""Freezing: which parameters get gradients, with and without recompute; no graph of frozen parts; stochastic depth."""

import paddle
import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.training.losses import sft_loss
from paddle_internvl.training.trainable import count_parameters, set_drop_path, set_trainable
from tests.training.goldens import CHECKPOINT, relative_error
from tests.training.test_losses import batch_of


@pytest.fixture(scope="module")
def model():
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    model.train()
    return model


@pytest.fixture(params=[False, True], ids=["kept", "recomputed"])
def recomputed(model, request):
    parts = model.vision_model.encoder, model.language_model.model
    for part in parts:
        part.enable_recompute = request.param
    set_drop_path(model, 0.0)
    yield
    for part in parts:
        part.enable_recompute = False
    set_trainable(model)
    model.clear_gradients()


def trained(model) -> set[str]:
    """Names of the parameters with a gradient that is not zero."""
    sft_loss(model, batch_of("sft")).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum())}


def names(model, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


VISION, MLP, LLM = "vision_model.", "mlp1.", "language_model."
LAST = "vision_model.encoder.layers.2."
CASES = [
    ({}, (VISION, MLP, LLM)),
    ({"freeze_backbone": True}, (MLP, LLM)),
    ({"freeze_llm": True, "freeze_backbone": True}, (MLP,)),  # stage 1
    ({"freeze_llm": True}, (VISION, MLP)),  # stage 1.5
    ({"freeze_backbone": True, "freeze_mlp": True}, (LLM,)),
    ({"freeze_backbone": True, "freeze_llm": True, "unfreeze_vit_layers": -1}, (LAST, MLP)),
    ({"freeze_backbone": True, "freeze_llm": True, "unfreeze_vit_layers": 2}, (LAST, MLP)),
    ({"freeze_backbone": True, "freeze_llm": True, "freeze_mlp": True, "unfreeze_vit_layers": -1}, (LAST,)),
    ({"freeze_llm": True, "freeze_backbone": True, "freeze_mlp": True, "unfreeze_lm_head": True}, (LLM + "lm_head.",)),
]


@pytest.mark.parametrize("arguments, prefixes", CASES)
def test_what_is_not_frozen_gets_gradients(model, recomputed, arguments, prefixes):
    set_trainable(model, **arguments)
    assert trained(model) == names(model, *prefixes)
    trainable = {name for name, p in model.named_parameters() if not p.stop_gradient}
    assert trainable == names(model, *prefixes)


def test_a_frozen_tower_keeps_no_graph(model, recomputed):
    set_trainable(model, freeze_backbone=True, freeze_mlp=True)
    assert model.extract_feature(paddle.ones([1, 3, 112, 112])).stop_gradient
    set_trainable(model, freeze_backbone=True)
    assert model.vision_model.hidden_state(paddle.ones([1, 3, 112, 112]), -1).stop_gradient


def test_recompute_gives_the_same_gradients(model):
    found = []
    for recompute in (False, True):
        model.vision_model.encoder.enable_recompute = model.language_model.model.enable_recompute = recompute
        sft_loss(model, batch_of("sft_multi")).backward()
        found.append({name: p.grad.numpy() for name, p in model.named_parameters()})
        model.clear_gradients()
    model.vision_model.encoder.enable_recompute = model.language_model.model.enable_recompute = False
    for name, gradient in found[0].items():
        assert relative_error(found[1][name], gradient) < 5e-6, name


def test_counts(model):
    set_trainable(model, freeze_backbone=True, freeze_llm=True)
    vision, mlp, llm = count_parameters(model)
    assert (vision.part, vision.trainable, llm.trainable) == ("vision_model", 0, 0)
    assert mlp.total == mlp.trainable == 256 + 256 + 256 * 64 + 64 + 64 * 64 + 64
    assert vision.total + mlp.total + llm.total == sum(p.size for p in model.parameters())
    set_trainable(model)


def test_errors(model):
    with pytest.raises(ValueError, match="nothing is trained"):
        set_trainable(model, freeze_llm=True, freeze_backbone=True, freeze_mlp=True)
    with pytest.raises(ValueError, match="unfreeze_vit_layers=3, but the vision tower has 3 layers"):
        set_trainable(model, freeze_backbone=True, unfreeze_vit_layers=3)
    with pytest.raises(ValueError, match="trainable=True"):
        set_trainable(InternVLChatModel.from_pretrained(str(CHECKPOINT)))
    with pytest.raises(ValueError, match="drop_path_rate=1"):
        set_drop_path(model, 1.0)
    set_trainable(model)


def test_drop_path_grows_over_the_layers(model):
    set_drop_path(model, 0.4)
    assert [layer.drop_path.rate for layer in model.vision_model.encoder.layers] == [0.0, 0.2, 0.4]
    assert model.config.vision_config.drop_path_rate == 0.4
    paddle.seed(0)
    one, other = (model.extract_feature(paddle.ones([8, 3, 112, 112])).numpy() for _ in range(2))
    assert (one != other).any()
    set_drop_path(model, 0.0)
