"""Who takes which turn, what is repeated, and what is marked, with processes that only pretend."""

import numpy as np
import pytest

from paddle_internvl.bench import turns
from paddle_internvl.bench.stages import CONTENDERS, OURS, STAGES, TORCH, Stage, select
from paddle_internvl.bench.turns import Bench


class Pretender:
    """In a worker's place: notes what it is asked; `foreign` are the shares that its runs report, in turn."""

    asked: list = []
    foreign: list = []
    alive = 0

    def __init__(self, side, environment=None, device=None):
        self.side, self.environment = side, environment
        Pretender.alive += 1

    def ask(self, order):
        Pretender.asked.append((self.side, order["do"], order.get("kind")))
        if order["do"] == "ready":
            return {}
        if order.get("save"):
            np.save(order["save"], np.ones(3) * (1 if self.side == "ours" else 2))
        loads = order["do"] == "load"
        foreign = 0.0 if loads or not Pretender.foreign else Pretender.foreign.pop(0)
        return {
            "seconds": 5.0 if loads else 2.0,
            "runs": 1,
            "foreign": foreign,
            "peak": 10 + loads,
            "resident": 9,
            "stored": 16,
        }

    def end(self):
        Pretender.alive -= 1


@pytest.fixture
def bench(monkeypatch, tmp_path):
    monkeypatch.setattr(turns, "Worker", Pretender)
    Pretender.asked, Pretender.foreign, Pretender.alive = [], [], 0
    contenders = {name: CONTENDERS[name] for name in (OURS, TORCH)}
    with Bench(contenders, {"hf": tmp_path, "paddle": tmp_path}, tmp_path, rounds=2) as bench:
        yield bench
    assert Pretender.alive == 0  # whatever happened, no process is left


def runs():
    return [side for side, do, _ in Pretender.asked if do == "run"]


def test_contenders_take_turns(bench, tmp_path):
    stage = Stage("see", "vision", {"tiles": 1}, (OURS, TORCH, "best torch"), "vision")
    made, outputs = bench.run(stage)
    assert runs() == ["ours", "reference", "ours", "reference"]  # a contender that is not there is left out
    assert [(turn.contender, turn.round) for turn in made] == [(OURS, 0), (TORCH, 0), (OURS, 1), (TORCH, 1)]
    assert {turn.stored for turn in made} == {16}
    assert {name: array[0] for name, array in outputs.items()} == {OURS: 1, TORCH: 2}
    assert not list(tmp_path.glob("*.npy"))


def test_neighbours_share_processes(bench):
    for tiles in (1, 7):
        bench.run(Stage(f"see {tiles}", "vision", {"tiles": tiles}, (OURS, TORCH), "vision"))
    assert sum(do == "load" for _, do, _ in Pretender.asked) == 2 == Pretender.alive
    bench.run(Stage("read", "prefill", {"length": 3}, (OURS, TORCH), "language"))
    assert sum(do == "load" for _, do, _ in Pretender.asked) == 4 and Pretender.alive == 2


def test_a_disturbed_turn_is_repeated_and_the_best_try_counts(bench):
    Pretender.foreign = [0.5, 0.05, 0.0, 0.9, 0.3, 0.4, 0.0]
    made, _ = bench.run(Stage("see", "vision", {"tiles": 1}, (OURS, TORCH), "vision"))
    assert [turn.foreign for turn in made] == [0.05, 0.0, 0.3, 0.0]
    assert [turn.disturbed for turn in made] == [False, False, True, False]
    assert runs() == ["ours"] * 2 + ["reference"] + ["ours"] * 3 + ["reference"]


def test_loading_is_timed_in_a_fresh_process_each_time(bench):
    made, _ = bench.run(Stage("load", "load", {}, (OURS, TORCH), "all"))
    assert [turn.seconds for turn in made] == [5.0] * 4 and runs() == []
    cold, _ = bench.run(Stage("cold", "cold", {"length": 3}, (OURS, TORCH), "all"))
    assert [turn.seconds for turn in cold] == [7.0] * 4 and cold[0].peak == 11
    assert sum(do == "load" for _, do, _ in Pretender.asked) == 8 and Pretender.alive == 0


def test_what_does_not_fit_into_memory_together_is_started_for_each_turn(bench, monkeypatch):
    monkeypatch.setattr(turns, "available_memory", lambda: 3 << 30)
    bench.needs = {"language": 1 << 30, "all": 2 << 30}
    bench.run(Stage("read", "prefill", {"length": 3}, (OURS, TORCH)))
    assert [do for _, do, _ in Pretender.asked] == ["ready", "load", "run"] * 4 and Pretender.alive == 0


def test_selecting_stages():
    assert select(None) == (list(STAGES), True)
    chosen, converts = select(["decode at 300", "projector"])
    assert [stage.name for stage in chosen] == ["projector 7 tiles", "decode at 300"] and not converts
    assert select(["conversion"]) == ([], True)
    with pytest.raises(ValueError, match="stage 'sing' is not known; known: answer, cold"):
        select(["sing"])


def test_every_stage_has_its_rivals():
    for stage in STAGES:
        assert set(stage.contenders) <= CONTENDERS.keys() and set(stage.goals) <= set(stage.contenders)
        for name, (_, of_rival) in stage.goals.items():
            assert of_rival is None or CONTENDERS[name].rival in stage.contenders, stage.name
