"""`doctor --gpu` on a machine without a card: its checks on a CPU, with CUDA's kernels emulated or missing."""

import json

import paddle
import pytest

from paddle_internvl.cli import card_report
from paddle_internvl.cli.main import main
from paddle_internvl.ops import attention, dispatch
from paddle_internvl.verification import card, probes, roofline
from tests.ops import test_dispatch
from tests.random_checkpoints import ROOT, TINY, TOKENIZER

LARGE = ("vision", "prefill 8B", "prefill 4B")  # shapes that take seconds on a CPU


def measured(operation: str, *names: str) -> dict[str, probes.Parity]:
    """Name -> parity of an operation's probes (all but the large ones, or those of these names), in float32."""
    selected = [probe for probe in probes.PROBES if probe.operation == operation]
    selected = [probe for probe in selected if (probe.name in names if names else not probe.name.startswith(LARGE))]
    return {probe.name: probes.measure(probe, "float32") for probe in selected}


@pytest.fixture
def anything_goes(monkeypatch):
    """Every implementation may run, whether its kernel is there or not."""
    monkeypatch.setattr(dispatch.Candidate, "obstacle", lambda *_: "")
    everything = dispatch.Machine((99, 0), "", frozenset())  # one that no other test's choices are remembered for
    monkeypatch.setattr(dispatch, "this_machine", lambda: everything)


played = pytest.fixture(test_dispatch.played.__wrapped__)  # CUDA's functions as Paddle documents them


@pytest.mark.parametrize("operation", ["attention", "rope"])
def test_probes_agree_with_what_paddle_documents(anything_goes, played, operation):
    names = [p.name for p in probes.PROBES if p.operation == operation and not p.gradient]
    results = measured(operation, *(name for name in names if not name.startswith(LARGE)))
    assert len(results) >= 2
    assert {parity.state for parity in results.values()} == {"ok"}, results
    assert all(parity.error < 1e-5 for parity in results.values())


def test_a_wrong_implementation_is_found(anything_goes, played, monkeypatch):
    monkeypatch.setitem(attention.IMPLEMENTATIONS, "flash", lambda q, *rest: attention.reference(q * 1.01, *rest))
    parity = measured("attention", "prefill, window")["prefill, window"]
    assert parity.state == "off" and parity.error > 1e-3


def test_a_missing_kernel_is_reported(anything_goes):
    assert {parity.state for parity in measured("weight_only_linear").values()} == {"failed"}
    parity = measured("rms_norm", "gradient")["gradient"]
    assert parity.state == "failed" and "rms_norm" in parity.note and parity.error is None


def test_implementations_of_a_cpu_are_measured():
    assert {parity.state for parity in measured("swiglu").values()} == {"ok"}
    assert {name: parity.state for name, parity in measured("rms_norm").items()} == {
        "896": "ok", "3200": "ok", "with the sum": "ok", "gradient": "not here",
    }  # fmt: skip
    assert measured("attention", "decode")["decode"].note == "it runs on gpu, not on cpu"


def test_a_value_that_is_not_finite_is_off():
    one = [paddle.ones([2]).numpy()]
    assert probes.relative_error([one[0] * float("nan")], one) == float("inf") and probes.relative_error(one, one) == 0


def test_every_implementation_of_a_card_has_a_probe():
    probed = {(probe.operation, probe.form) for probe in probes.PROBES}
    expected = {
        (name, candidate.name)
        for name, candidates in dispatch.CANDIDATES.items()
        for candidate in candidates[:-1]
        if "gpu" in candidate.devices
    }
    assert probed == expected


def test_roofline_counts_what_is_computed():
    from convert.mappings import paddle_config
    from paddle_internvl.configuration import InternVLChatConfig

    config = InternVLChatConfig.from_dict(paddle_config(json.loads((TINY / "llama.json").read_text())))
    vision, prefill, step = roofline.model_rows(config, "float32", tiles=2, prompt=50)
    # By hand: 3 layers of width 48, MLP 96, 17 positions; 3 layers of width 64 with 8 heads, 4 for keys, MLP 112.
    weights = 3 * (4 * 48 * 48 + 2 * 48 * 96)
    assert vision.flops * vision.seconds == pytest.approx(2 * 17 * (2 * weights + 3 * 4 * 48 * 17))
    weights, head = 3 * (64 * 64 * 3 + 3 * 64 * 112), 64 * 1009
    assert prefill.flops * prefill.seconds == pytest.approx(2 * weights * 50 + 2 * head + 3 * 2 * 64 * 50**2)
    assert step.bytes * step.seconds == pytest.approx(4 * (weights + head + 50 * 3 * 2 * 32))
    product, copy = roofline.peaks("float32", side=64, megabytes=1)
    assert product.flops * product.seconds == pytest.approx(2 * 64**3)
    assert copy.bytes * copy.seconds == pytest.approx(2 << 20)


def test_the_document(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probes, "PROBES", [probe for probe in probes.PROBES if probe.operation == "swiglu"])
    real = card.examine
    monkeypatch.setattr(card, "examine", lambda *arguments: real(*arguments, side=64, megabytes=1, tiles=1, prompt=20))
    out = tmp_path / "card.json"
    assert card_report.write(TOKENIZER, TINY / "qwen2.json", out, lambda: [{"what": "Python"}], device="cpu") == 0
    document = json.loads(out.read_text())
    assert [row["state"] for row in document["parity"]] == ["ok", "ok"]
    assert document["answers"]["same"] and document["answers"]["card"][0] == "3"
    assert document["machine"]["taken"]["attention"] == dispatch.choose_for(
        "attention", dispatch.Case("cpu", "float32")
    ) and document["findings"] == [{"what": "Python"}]
    assert len(document["roofline"]["rows"]) == 5
    assert "all checks passed" in capsys.readouterr().out


def test_doctor_gpu_needs_a_card(capsys):
    assert main(["doctor", "--gpu"]) == 2
    assert "this Paddle sees no CUDA card" in capsys.readouterr().err


def test_doctor_gpu_needs_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="the card is examined with --checkpoint"):
        card_report.write(tmp_path, ROOT / "configs/internvl2_5-1b.json", tmp_path / "o", list, device="cpu")
