"""CUDA programs of every part of the network, for every backbone, traced without a card (`parts`): no float32 operand
in a bfloat16 product, only casts with a reason in a table, and all fused operations present.
"""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.families import CASES
from tests.gpu.configs import traced_config
from tests.gpu.kernels import KERNELS
from tests.random_checkpoints import ROOT

DECODING = ("prefill", "padded prefill", "prefill after a prefix", "decode", "paged decode")
QUANTIZED = ("decode in 8 bits", "decode in 4 bits")
BACKBONE = ("vision", "prefill", "decode", "training")  # the parts whose programs differ between backbones
TRAINED = (  # by part that is trained, and packed, recomputed; 'loss': as it is computed without a graph
    "training projector and decoder", "training projector", "training tower and projector", "training last tower layer",
    "training adapters", "training packed", "training recomputed", "loss",
)  # fmt: skip
EVERY = ("vision", *DECODING, "whole", "training", *QUANTIZED, *TRAINED)
PARTS = {case: EVERY if case == "qwen2" else BACKBONE for case in CASES} | {"qwen3_moe": (*BACKBONE, *QUANTIZED)}

# (from, to, where) -> why; LOW stands for the model's dtype. '?' is the gradient of another cast.
LOW = "low"
ALLOWED_CASTS = {
    ("float32", LOW, "paddle_internvl/models/internvl.py extract_feature"): "pixels are prepared as float32",
    (LOW, "float32", "paddle_internvl/models/vision.py resize_positions"): "positions are resized in float32",
    ("float32", LOW, "paddle_internvl/models/vision.py resize_positions"): "and are the weights' again",
    ("float32", LOW, "paddle_internvl/models/decoder.py <genexpr>"): "rotary tables are made in float32",
    (LOW, "float32", "paddle_internvl/models/experts.py route"): "routers' softmax is float32",
    ("float32", LOW, "paddle_internvl/models/experts.py forward"): "its weights have the dtype of the hidden states",
    ("float64", "float32", "paddle_internvl/ops/rope.py _computed"): "a base that grows is computed in float64",
    (LOW, "float32", "paddle_internvl/models/decoder.py compute_logits"): "logits are float32",
    (LOW, "float32", "paddle_internvl/models/loss.py part"): "logits of the loss are float32",
    ("float32", LOW, "paddle_internvl/models/vision.py forward"): "what is dropped is drawn in float32 (training)",
    (LOW, "float32", "paddle_internvl/models/loss.py forward"): "logits of the loss are float32",
    (
        LOW,
        "float32",
        "paddle_internvl/models/loss.py backward",
    ): "and so are their gradients, and the sum of the head's",
    ("float32", LOW, "paddle_internvl/models/loss.py backward"): "which products and parameters take in their dtype",
    (LOW, "float32", "?"): "gradient of a cast",
    ("float32", LOW, "?"): "gradient of a cast",
}
PLAIN_CASTS = {  # a softmax without a fused kernel runs in float32
    (LOW, "float32", "paddle_internvl/ops/attention.py reference"): "scores",
    ("float32", LOW, "paddle_internvl/ops/attention.py reference"): "weights",
}

WIDE_CASTS = {  # residual sums are float32 under float16 (`norms.residual_stream`), and norms bring them back
    (LOW, "float32", "paddle_internvl/ops/norms.py residual_stream"): "the sum begins",
    (LOW, "float32", "paddle_internvl/ops/norms.py add_rms_norm"): "a branch is added",
    (LOW, "float32", "paddle_internvl/models/decoder.py forward"): "a branch is added",
    (LOW, "float32", "paddle_internvl/models/vision.py forward"): "a branch and its scale",
    (LOW, "float32", "paddle_internvl/ops/norms.py rms_norm"): "the norm's weight",
    ("float32", LOW, "paddle_internvl/ops/norms.py rms_norm"): "what is normalised",
    (LOW, "float32", "paddle_internvl/ops/norms.py forward"): "the norm's weight and bias",
    ("float32", LOW, "paddle_internvl/ops/norms.py forward"): "what is normalised",
}

OLD_CARD = ("biased_v1", "qwen2")  # cases that are also traced for a card without bfloat16


OUTPUTS = {"vision": ["bfloat16"], "whole": ["float32"] * 2, "loss": ["float32", "bfloat16", "bfloat16"]}


@pytest.fixture(scope="module")
def everything():
    """'case:dtype:major' -> findings of `parts`, from a process of its own."""
    requests = [f"{case}:bfloat16:8:{','.join(PARTS[case])}" for case in CASES]
    requests += [f"{case}:float16:7:{','.join(BACKBONE)}" for case in OLD_CARD]
    command = [sys.executable, "-m", "tests.gpu.parts", *requests]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=CASES)
def built(request, everything):
    """(case, findings about its programs for a card of sm80 in bfloat16)."""
    return request.param, everything[f"{request.param}:bfloat16:8"]


def casts_of(document: dict, low: str):
    for taken, given, site, _ in document["casts"]:
        yield tuple(LOW if kind == low else kind for kind in (taken, given)) + (site,)


def test_bfloat16_everywhere(built):
    case, documents = built
    assert tuple(documents) == PARTS[case]
    for name, document in documents.items():
        assert document["faults"] == [], name
        assert document["outputs"] == OUTPUTS.get(name, ["float32"])
        for cast in casts_of(document, "bfloat16"):
            assert cast in ALLOWED_CASTS, f"{name}: {cast}"
        if not name.startswith("training"):
            assert not [cast for cast in document["casts"] if cast[2] == "?"]


def expected(case: str) -> dict[str, Counter]:
    """Number of fused and heavy operations of each part, computed from the config."""
    config = traced_config(case)
    vision, language = config["vision_config"], config["llm_config"]
    kept = range(vision["num_hidden_layers"] + 1)[config["select_layer"]]
    rms, biased = vision["norm_type"] == "rms_norm", vision["qkv_bias"]
    vision_part = Counter(conv2d=1, flash_attn=kept, gelu=kept + 1, linear_v2=(4 if biased else 3) * kept + 2)
    vision_part += Counter(layer_norm=1 if rms else 2 * kept + 1, matmul=0 if biased else kept)
    vision_part += Counter(fused_rms_norm_quant=(4 if vision["qk_normalization"] else 2) * kept if rms else 0)
    depth, kind = language["num_hidden_layers"], language["architectures"][0]
    with_bias = {"Qwen2ForCausalLM": 3, "InternLM2ForCausalLM": 4 if language.get("bias") else 0}.get(kind, 0)
    text = Counter(linear_v2=with_bias * depth, matmul=(7 - with_bias) * depth + 1, swiglu=depth)
    norms = (4 if kind.startswith("Qwen3") else 2) * depth + 1
    sparse = depth - 1 if kind == "Qwen3MoeForCausalLM" else 0  # a router and two stacked weights
    text += Counter(softmax=sparse)
    few = 7 * (depth - sparse) + (4 + 2 * 4) * sparse  # a product for each of the two experts of two tokens
    text += Counter(fused_rms_norm_quant=norms, fused_rotary_position_embedding=2 * depth)
    quantized = Counter({**text, "linear_v2": 0, "matmul": 1 + sparse, "weight_only_linear": few, "flash_attn": depth})
    differentiated = vision_part + text + Counter(flashmask_attention=depth)
    whole = differentiated + Counter(matmul=1)  # the head twice: for the loss, and for the logits that are returned

    def renamed(counts: Counter) -> Counter:
        return Counter({name.replace("fused_rms_norm_quant", "rms_norm"): count for name, count in counts.items()})

    return {
        "vision": vision_part,
        **{name: text + Counter(flash_attn=depth) for name in DECODING},
        "padded prefill": text + Counter(flashmask_attention=depth),
        **dict.fromkeys(QUANTIZED, +quantized),
        "whole": whole,
        "training": renamed(whole)
        + Counter({f"{name}_grad": count for name, count in renamed(differentiated).items()}),
    }


COUNTED = {
    "conv2d", "flash_attn", "flashmask_attention", "gelu", "linear_v2", "matmul", "layer_norm", "rms_norm", "swiglu",
    "fused_rms_norm_quant", "fused_rotary_position_embedding", "weight_only_linear", "softmax", "silu", "einsum",
}  # fmt: skip


def test_fused_operations_are_there(built):
    case, documents = built
    counts = expected(case)
    for name, document in documents.items():
        if name in TRAINED:
            continue
        found = {op: count for op, count in document["count"].items() if op.removesuffix("_grad") in COUNTED}
        assert found == dict(+counts[name]), name


def test_frozen_parts_have_no_gradients(everything):
    """Gradients in the tower: of its attention in the layers that are trained, of its patches if all of it is."""
    documents, config = everything["qwen2:bfloat16:8"], traced_config("qwen2")
    depth = range(config["vision_config"]["num_hidden_layers"] + 1)[config["select_layer"]]
    attention = {"training": depth, "training tower and projector": depth, "training adapters": depth,
                 "training last tower layer": 1}  # fmt: skip
    whole = documents["training"]["count"]
    for name in ("training", *TRAINED[:-1]):
        count = documents[name]["count"]
        assert count.get("flash_attn_grad", 0) == attention.get(name, 0), name
        assert count.get("conv2d_grad", 0) == (attention.get(name, 0) == depth and name != "training adapters"), name
        assert count["flashmask_attention_grad"] == whole["flashmask_attention_grad"] == count["flashmask_attention"]
        assert count["flash_attn"] == depth and count["cross_entropy_with_softmax_grad"] == 1
    assert "embedding_grad" in documents["training projector and decoder"]["count"]
    assert "embedding_grad" not in documents["training projector"]["count"]


def test_kernels_are_in_the_table(built):
    _, documents = built
    for name, document in documents.items():
        for operation, kind in document["kernels"]:
            if operation.startswith("builtin.") or operation == "data":
                continue
            assert kind in KERNELS[operation].dtypes, f"{name}: {operation} of {kind}"


@pytest.mark.parametrize("case", OLD_CARD)
def test_a_card_without_bfloat16(case, everything):
    """sm70 in float16: plain attention, the same fused operations otherwise; softmax and sums in float32."""
    for name, document in everything[f"{case}:float16:7"].items():
        assert document["faults"] == [], name
        allowed = ALLOWED_CASTS | PLAIN_CASTS | WIDE_CASTS
        for cast in casts_of(document, "float16"):
            assert cast in allowed, f"{name}: {cast}"
        count = document["count"]
        assert not any("flash" in operation for operation in count) and count["softmax"] > 0
        assert (
            count.get("fused_rotary_position_embedding", 0) == expected(case)[name]["fused_rotary_position_embedding"]
        )


def test_what_is_confirmed():
    """The arithmetic's kernels are confirmed by Paddle's sources but for what the table says."""
    unconfirmed = {name for name, kernel in KERNELS.items() if kernel.note and not kernel.confirmed}
    assert unconfirmed == {
        "rms_norm", "flashmask_attention", "flashmask_attention_grad", "softmax", "scatter", "add_n",
        "cross_entropy_with_softmax",
    }  # fmt: skip
    assert sum(kernel.confirmed for kernel in KERNELS.values()) >= 30
    assert all(kernel.commit and kernel.source.endswith(".cu") for kernel in KERNELS.values() if kernel.confirmed)
