"""The least work of each stage, against sums by hand and the figures that were measured before for InternVL2_5-1B."""

import pytest

from convert.folder import read_config
from paddle_internvl.bench.work import Costs, Work
from tests.random_checkpoints import ROOT, tiny_config

ONE_BILLION = Costs(read_config(ROOT / "configs/internvl2_5-1b.json"))


@pytest.mark.parametrize(
    ("work", "gigaflops"),
    [
        (ONE_BILLION.vision(1), 722),  # shared/reference/cpu_perf.md, section 0
        (ONE_BILLION.prefill(300), 219),
        (ONE_BILLION.prefill(1844), 1466),
    ],
)
def test_published_shapes(work, gigaflops):
    assert work.flops / 1e9 == pytest.approx(gigaflops, rel=0.01)


def test_a_decode_step_reads_every_weight_once():
    work = ONE_BILLION.decode(300)
    assert work.elements / 1e6 == pytest.approx(494, rel=0.01)
    assert work.cache == 2 * 24 * 2 * 64 * 300  # keys and values, layers, kv heads, head dim, tokens
    assert Work(elements=10, cache=3).bytes(16) == 20 + 12


def test_a_decode_step_reads_the_chosen_experts():
    """3.35 billion weights without the embedding's 0.31; of many tokens every expert."""
    costs = Costs(read_config(ROOT / "configs/internvl3_5-30b-a3b.json"))
    assert costs.decode(300).elements / 1e9 == pytest.approx(3.35 - 0.31, rel=0.01)
    assert costs.decode(300, batch=300).elements / 1e9 == pytest.approx(30.53 - 0.31, rel=0.01)
    assert costs.prefill(1).flops == pytest.approx(2 * costs.decode(1).elements, rel=0.01)


def test_a_tiny_one_by_hand():
    """configs/tiny/qwen2: D 56, 7 heads, 1 kv head of 8, MLP 72, 3 layers, 1009 words; the head is the tied table."""
    costs = Costs(tiny_config("qwen2"))
    layer = 2 * 56 * 56 + 2 * 56 * 8 + 3 * 56 * 72
    assert costs.decode(5).elements == 3 * layer + 1009 * 56
    assert costs.prefill(5, batch=2).flops == 2 * (2 * 5 * 3 * layer + 2 * 3 * 56 * 5**2 + 2 * 1009 * 56)
    rows, encoder = 2 * 17, 3 * (4 * 48 * 48 + 2 * 48 * 96)
    assert costs.vision(2).flops == 2 * 2 * 16 * 48 * 588 + 2 * rows * encoder + 4 * 3 * 48 * rows * 17
    assert costs.projector(2).flops == 2 * 2 * 4 * (4 * 48 * 56 + 56 * 56)
