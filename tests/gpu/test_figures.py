"""Half precision by emulation: errors of every stage held to a record, no overflow, sums beyond float16's range."""

import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import AutoTokenizer

from paddle_internvl import load_image
from paddle_internvl.modeling import InternVLChatModel
from paddle_internvl.models import decoder, vision
from paddle_internvl.verification.probes import PROBES, measure
from tests.families import GOLDEN
from tests.gpu.figures import HALVES, RECORD, TILES, errors, of_checkpoint
from tests.gpu.rounding import emulated
from tests.random_checkpoints import ROOT, TOKENIZER, random_pixels

RECORDED = json.loads(RECORD.read_text())
SETTINGS = {"max_new_tokens": 8}
# A rounding of bfloat16 is at most 2^-9 of a value, one of float16 2^-12; these are some dozens of them, one by one.
BOUNDS = {"bfloat16": 4e-2, "float16": 5e-3}


@pytest.fixture(scope="module")
def folders(hf_folders):
    return {**hf_folders, "internvl-tiny": TOKENIZER}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", [*GOLDEN, "internvl-tiny"])
def test_errors_are_as_recorded(folders, case, dtype):
    found, recorded = of_checkpoint(folders[case], dtype), RECORDED[case][dtype]
    assert found["overflows"] == recorded["overflows"] == 0
    assert found["largest"] < 100
    assert list(found["errors"]) == list(recorded["errors"])
    for stage, error in found["errors"].items():
        assert 0 < error < BOUNDS[dtype], stage
        assert error == pytest.approx(recorded["errors"][stage], rel=0.2), stage


def test_the_record_is_plausible():
    """float16 has three bits more than bfloat16, so its errors are about an eighth; on random weights they grow along
    the decoder."""
    assert set(RECORDED) == {*GOLDEN, "internvl-tiny"}
    for case, dtypes in RECORDED.items():
        for stage, error in dtypes["float16"]["errors"].items():
            assert 4 < dtypes["bfloat16"]["errors"][stage] / error < 16, (case, stage)
        blocks = [error for stage, error in dtypes["bfloat16"]["errors"].items() if stage.startswith("dec.block")]
        assert blocks[-1] > blocks[0] or case == "internvl-tiny", case


def loud(hf_folder, tower: bool) -> InternVLChatModel:
    """A model with a channel whose residual sum is beyond float16's 65504, though no part of the sum is."""
    model = InternVLChatModel.from_pretrained(str(hf_folder), trainable=True)
    with paddle.no_grad():
        if tower:
            for layer in model.vision_model.encoder.layers:
                layer.mlp.fc2.bias[3] = 3e4
                layer.ls2[3] = 2.0
        else:
            model.get_input_embeddings().weight[:, 3] = 6e4
            model.language_model.model.layers[0].self_attn.o_proj.bias[3] = 3e4
    return model


@pytest.mark.parametrize("tower", [True, False])
def test_float16_holds_large_sums(hf_folders, tower, monkeypatch):
    pixel_values = random_pixels(TILES, 56)
    found, seen = errors(loud(hf_folders["biased_v1"], tower), pixel_values, "float16")
    assert not seen.overflows and max(found.values()) < BOUNDS["float16"]
    for module in (vision, decoder):
        monkeypatch.setattr(module, "residual_stream", lambda x: x)
    with np.errstate(invalid="ignore", over="ignore"):
        _, seen = errors(loud(hf_folders["biased_v1"], tower), pixel_values, "float16")
    assert seen.overflows  # so the sums above were large enough to show something


@pytest.mark.parametrize("dtype", HALVES)
def test_the_bundled_checkpoint_answers_alike(dtype):
    """A greedy answer, through the engine, in float32 and in emulated half precision."""
    model = InternVLChatModel.from_pretrained(str(TOKENIZER), trainable=True)
    tokenizer = AutoTokenizer.from_pretrained(str(TOKENIZER))
    pixel_values = load_image(str(ROOT / "demo/assets/shapes.png"), max_num=1)
    question = "<image>\nDescribe the image."
    exact = model.chat(tokenizer, pixel_values, question, SETTINGS)
    model.to(dtype=dtype)
    with emulated() as seen:
        rounded = model.chat(tokenizer, pixel_values, question, SETTINGS)
    assert rounded == exact and not seen.overflows


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("operation", ["rms_norm", "swiglu"])
def test_fused_forms_are_as_near_as_their_twins(operation, dtype):
    """Those that a CPU has, by the measure that `doctor --gpu` applies to a card's."""
    for probe in PROBES:
        if probe.operation == operation and not probe.gradient:
            with emulated():
                parity = measure(probe, dtype)
            assert parity.state == "ok" and 0 < parity.error <= 1.1 * parity.twin_error, parity


def test_emulation_is_put_back_and_counts():
    before = paddle._C_ops.matmul, paddle.Tensor.__mul__
    with emulated() as seen:
        x = paddle.to_tensor([6e4, 2.0]).astype("float16")
        assert (x * x).tolist() == [float("inf"), 4.0] and dict(seen.overflows) == {"mul": 1}
        y = paddle.to_tensor([1.0, 2**-9]).astype("bfloat16").reshape([1, 2])
        assert float(paddle.matmul(y, paddle.ones([2, 1], "bfloat16"))) == 1.0  # 1 + 2^-9 is no bfloat16
    assert before == (paddle._C_ops.matmul, paddle.Tensor.__mul__)
    with pytest.raises(Exception, match="dimension|mul"), emulated():
        paddle.matmul(paddle.ones([2, 3], "bfloat16"), paddle.ones([2, 3], "bfloat16"))
