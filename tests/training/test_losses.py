"""SFT losses: upstream's losses and gradients, padded and packed; packs and micro-batches against single
samples."""

import numpy as np
import paddle
import pytest

from paddle_internvl import InternVLChatModel
from paddle_internvl.models.loss import label_log_probs
from paddle_internvl.training.batches import nothing_to_learn
from paddle_internvl.training.losses import count_learnt, segment_ids, sft_loss
from paddle_internvl.training.trainable import set_drop_path
from tests.training.goldens import CHECKPOINT, golden, normalised, relative_error, tensors, upstream_tensors

BATCHES = ["sft", "sft_multi", "packed_token", "packed_sample", "packed_square", "packed_square_padded"]
EXPECTED, ARRAYS = golden("loss/internlm2_v25"), tensors("loss/internlm2_v25")
TILES = tensors("loss/tiles_uint8")


@pytest.fixture(scope="module")
def model():
    model = InternVLChatModel.from_pretrained(str(CHECKPOINT), trainable=True)
    set_drop_path(model, 0.0)
    model.train()
    return model


@pytest.fixture(autouse=True)
def no_gradients(request):
    yield
    if "model" in request.fixturenames:
        request.getfixturevalue("model").clear_gradients()


def batch_of(name: str) -> dict:
    arrays = {key.partition(".")[2]: value for key, value in ARRAYS.items() if key.startswith(f"{name}.")}
    batch = {key: value for key, value in arrays.items() if key.partition(".")[0] not in ("grad", "logits_last")}
    tiles = np.concatenate([TILES[sample] for sample in EXPECTED[name]["samples"]])
    padding = len(batch["image_flags"]) - len(tiles)  # tiles of zeros
    pixel_values = np.concatenate([normalised(tiles), np.zeros((padding, *tiles.shape[1:]), np.float32)])
    integers = {k: v.astype(np.int64) for k, v in batch.items() if v.dtype == np.int32 and k != "cu_seqlens"}
    return {**batch, **integers, "pixel_values": pixel_values}


def gradients(model) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_upstream_s(model, name):
    expected = EXPECTED[name]
    loss = sft_loss(model, batch_of(name))
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-6)
    loss.backward()
    found = upstream_tensors(gradients(model))
    norms = {name: norm for name, norm in expected["grad_norms"].items() if norm is not None}
    assert found.keys() == norms.keys()
    total = expected["grad_global_norm"]
    for key, norm in norms.items():
        assert np.linalg.norm(found[key]) == pytest.approx(norm, rel=2e-5, abs=1e-6 * total), key
    whole = {key: value for key, value in ARRAYS.items() if key.startswith(f"{name}.grad.")}
    for key, value in whole.items():
        assert relative_error(found[key.partition(".grad.")[2]], value) < 2e-5, key


@pytest.mark.parametrize("name", ["sft", "sft_multi"])
def test_last_logits_are_upstream_s(model, name):
    batch = batch_of(name)
    model.eval()
    keys = ("pixel_values", "input_ids", "attention_mask", "position_ids", "image_flags")
    logits = model(**{key: paddle.to_tensor(batch[key]) for key in keys}).logits.numpy()
    model.train()
    for row, length in enumerate(batch["attention_mask"].sum(-1)):
        np.testing.assert_allclose(logits[row, length - 1], ARRAYS[f"{name}.logits_last.{row}"], atol=2e-5)


def test_sums_of_each_packed_sample_are_upstream_s(model):
    """Cross entropy summed over each segment of a pack, and its number of learnt tokens."""
    batch = batch_of("packed_token")
    segments = segment_ids(batch["cu_seqlens"], batch["input_ids"].shape[1])
    names = ("pixel_values", "input_ids", "position_ids", "image_flags")
    hidden = model.hidden_states(**{n: paddle.to_tensor(batch[n]) for n in names}, segment_ids=segments)
    targets = batch["labels"][0, 1:]
    learnt = np.flatnonzero(targets != -100)
    rows = hidden[0, :-1].index_select(paddle.to_tensor(learnt))
    log_probs = label_log_probs(rows, model.language_model.lm_head, paddle.to_tensor(targets[learnt])).numpy()
    segments = segments.numpy()[0, 1:][learnt]
    for number, sample in enumerate(EXPECTED["packed_token"]["per_sample"]):
        assert (segments == number).sum() == sample["shifted"]
        assert -log_probs[segments == number].sum() == pytest.approx(sample["ce_sum"], rel=2e-6)
    assert count_learnt(batch) == len(learnt)


def split(batch: dict) -> list[dict]:
    """Samples of the pack as batches of their own."""
    bounds = batch["cu_seqlens"].reshape(-1)
    parts, first = [], 0
    for start, stop in zip(bounds, bounds[1:]):
        part = {key: batch[key][:, start:stop] for key in ("input_ids", "labels", "position_ids", "loss_weight")}
        tiles = len(TILES[EXPECTED["packed_square"]["samples"][len(parts)]])
        part |= {key: batch[key][first : first + tiles] for key in ("pixel_values", "image_flags")}
        parts.append(part)
        first += tiles
    return parts


def test_a_pack_equals_its_samples(model):
    """Loss and gradients of a pack: the weighted mean of its samples', each run alone."""
    batch = batch_of("packed_square")
    sft_loss(model, batch).backward()
    packed = gradients(model)
    model.clear_gradients()
    parts = split(batch)
    weights = [part["loss_weight"][:, 1:].sum() for part in parts]
    for part, weight in zip(parts, weights):
        (sft_loss(model, part) * float(weight / sum(weights))).backward()
    for name, separate in gradients(model).items():
        assert relative_error(packed[name], separate) < 2e-5, name


def test_accumulation_is_the_mean_of_micro_batches(model):
    batches = [batch_of("sft"), batch_of("sft_multi")]
    alone = []
    for batch in batches:
        sft_loss(model, batch).backward()
        alone.append(gradients(model))
        model.clear_gradients()
    for batch in batches:
        (sft_loss(model, batch) / 2).backward()
    for name, total in gradients(model).items():
        assert relative_error(total, (alone[0][name] + alone[1][name]) / 2) < 1e-5, name


def test_padding_tiles_and_flags_do_not_change_the_loss(model):
    batch = batch_of("sft_multi")
    padded = {
        **batch,
        "pixel_values": np.concatenate([batch["pixel_values"], np.ones((2, 3, 112, 112), np.float32)]),
        "image_flags": np.concatenate([batch["image_flags"], [0, 0]]),
    }
    assert float(sft_loss(model, padded)) == float(sft_loss(model, batch))


def test_text_alone_gives_the_vision_tower_zero_gradients(model):
    """All ranks of data-parallel training need a gradient of every parameter."""
    text = split(batch_of("packed_square"))[1]
    assert not text["image_flags"].any()
    sft_loss(model, text).backward()
    assert {name for name, _ in model.named_parameters()} == gradients(model).keys()
    assert all(not np.any(g) for name, g in gradients(model).items() if name.startswith(("vision_model", "mlp1")))


def test_nothing_to_learn_is_zero(model):
    batch = batch_of("packed_square")
    batch["labels"] = np.full_like(batch["labels"], -100)
    batch["loss_weight"] = np.zeros_like(batch["loss_weight"])
    loss = sft_loss(model, batch)
    loss.backward()
    assert float(loss) == 0 and count_learnt(batch) == 0
    assert all(not np.any(gradient) for gradient in gradients(model).values())


def test_weights_of_zero_are_zero(model):
    """Labels without weight, as those of a pack's padding: no 0 / 0."""
    batch = batch_of("packed_square")
    batch["loss_weight"] = np.zeros_like(batch["loss_weight"])
    assert float(sft_loss(model, batch)) == 0


@pytest.mark.parametrize("kept, features", [(3, 48), (2, 32), (0, 0)])
def test_too_few_or_too_many_features_are_an_error(model, kept, features):
    batch = batch_of("sft")
    batch["image_flags"][kept:] = 0
    if kept == 3:
        first = np.flatnonzero(batch["input_ids"][0] == model.img_context_token_id)[0]
        batch["input_ids"][0, first] = 0
    slots = 47 if kept == 3 else 48
    with pytest.raises(ValueError, match=rf"{slots} <IMG_CONTEXT> tokens but the images give {features}"):
        sft_loss(model, batch)


def test_weights_averaged_over_ranks_without_ranks(model):
    batch = batch_of("packed_square")
    assert float(sft_loss(model, batch, average_weight_over_ranks=True)) == pytest.approx(
        EXPECTED["packed_square"]["loss"], rel=1e-6
    )


def test_weights_averaged_over_ranks(model, monkeypatch):
    """Two ranks' losses average to the weighted mean over the tokens of both packs."""
    batches = split(batch_of("packed_square"))[:2]  # a picture sample, and text alone
    weights = [float(batch["loss_weight"][:, 1:].sum()) for batch in batches]
    losses = [float(sft_loss(model, batch)) for batch in batches]
    monkeypatch.setattr(paddle.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(paddle.distributed, "all_reduce", lambda total: total.set_value(paddle.to_tensor(sum(weights))))
    ranks = [float(sft_loss(model, batch, average_weight_over_ranks=True)) for batch in batches]
    assert weights[0] != weights[1]
    assert sum(ranks) / 2 == pytest.approx(np.average(losses, weights=weights), rel=1e-6)


def test_a_batch_of_skipped_samples_has_all_gradients(model):
    sft_loss(model, nothing_to_learn(112)).backward()
    assert {name for name, _ in model.named_parameters()} == gradients(model).keys()
    assert all(not np.any(gradient) for gradient in gradients(model).values())
