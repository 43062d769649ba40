"""Order, repetition and marking of trials, with fake worker processes."""

import numpy as np
import pytest

from paddle_internvl import runtime
from paddle_internvl.bench import figures, rivals, trials
from paddle_internvl.bench.model import lacking_instructions
from paddle_internvl.bench.stages import BFLOAT16, CONTENDERS, OPENVINO, OURS, STAGES, TORCH, Stage, select
from paddle_internvl.bench.trials import TrialRunner


class FakeWorker:
    """Records commands; `foreign` are the shares that its runs report, in order."""

    commands: list = []
    foreign: list = []
    alive = 0

    def __init__(self, side, environment=None, device=None, python=""):
        self.side, self.environment = side, environment
        FakeWorker.alive += 1

    def send(self, command):
        FakeWorker.commands.append((self.side, command["command"], command.get("kind")))
        if command["command"] == "ping":
            return {}
        if command.get("save"):
            np.save(command["save"], np.ones(3) * (1 if self.side == "ours" else 2))
        loads = command["command"] == "load"
        foreign = 0.0 if loads or not FakeWorker.foreign else FakeWorker.foreign.pop(0)
        return {
            "seconds": 5.0 if loads else 2.0,
            "runs": 1,
            "foreign": foreign,
            "peak": 10 + loads,
            "resident": 9,
            "stored": 16,
        }

    def end(self):
        FakeWorker.alive -= 1


@pytest.fixture
def runner(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "Worker", FakeWorker)
    FakeWorker.commands, FakeWorker.foreign, FakeWorker.alive = [], [], 0
    contenders = {name: CONTENDERS[name] for name in (OURS, TORCH)}
    with TrialRunner(contenders, {"hf": tmp_path, "paddle": tmp_path}, tmp_path, rounds=2) as runner:
        yield runner
    assert FakeWorker.alive == 0  # no process is left


def runs():
    return [side for side, command, _ in FakeWorker.commands if command == "run"]


def test_trials_are_interleaved(runner, tmp_path):
    stage = Stage("vision", "vision", {"tiles": 1}, (OURS, TORCH, "best torch"), "vision")
    results, outputs = runner.run(stage)
    assert runs() == ["ours", "torch", "ours", "torch"]  # an absent contender is left out
    assert [(trial.contender, trial.round) for trial in results] == [(OURS, 0), (TORCH, 0), (OURS, 1), (TORCH, 1)]
    assert {trial.stored for trial in results} == {16}
    assert {name: array[0] for name, array in outputs.items()} == {OURS: 1, TORCH: 2}
    assert not list(tmp_path.glob("*.npy"))


def test_neighbouring_stages_share_processes(runner):
    for tiles in (1, 7):
        runner.run(Stage(f"vision {tiles}", "vision", {"tiles": tiles}, (OURS, TORCH), "vision"))
    assert sum(command == "load" for _, command, _ in FakeWorker.commands) == 2 == FakeWorker.alive
    runner.run(Stage("prefill", "prefill", {"length": 3}, (OURS, TORCH), "language"))
    assert sum(command == "load" for _, command, _ in FakeWorker.commands) == 4 and FakeWorker.alive == 2


def test_a_disturbed_trial_is_repeated_and_its_best_try_counts(runner):
    FakeWorker.foreign = [0.5, 0.05, 0.0, 0.9, 0.3, 0.4, 0.0]
    results, _ = runner.run(Stage("vision", "vision", {"tiles": 1}, (OURS, TORCH), "vision"))
    assert [trial.foreign for trial in results] == [0.05, 0.0, 0.3, 0.0]
    assert [trial.disturbed for trial in results] == [False, False, True, False]
    assert runs() == ["ours"] * 2 + ["torch"] + ["ours"] * 3 + ["torch"]


def test_every_trial_of_loading_starts_a_process(runner):
    results, _ = runner.run(Stage("load", "load", {}, (OURS, TORCH), "all"))
    assert [trial.seconds for trial in results] == [5.0] * 4 and runs() == []
    cold, _ = runner.run(Stage("cold", "cold", {"length": 3}, (OURS, TORCH), "all"))
    assert [trial.seconds for trial in cold] == [7.0] * 4 and cold[0].peak == 11
    assert sum(command == "load" for _, command, _ in FakeWorker.commands) == 8 and FakeWorker.alive == 0


def test_contenders_that_exceed_the_memory_together_start_for_each_trial(runner, monkeypatch):
    monkeypatch.setattr(runtime, "free_memory", lambda device: 3 << 30)
    runner.part_bytes = {"language": 1 << 30, "all": 2 << 30}
    runner.run(Stage("prefill", "prefill", {"length": 3}, (OURS, TORCH)))
    assert [command for _, command, _ in FakeWorker.commands] == ["ping", "load", "run"] * 4 and FakeWorker.alive == 0


def test_selecting_stages():
    assert select(None) == (list(STAGES), True)
    selected, with_conversion = select(["decode at 300", "projector"])
    assert [stage.name for stage in selected] == ["projector 7 tiles", "decode at 300"] and not with_conversion
    assert select(["conversion"]) == ([], True)
    with pytest.raises(ValueError, match="stage 'sing' does not exist; choose answer, cold"):
        select(["sing"])


def test_contenders_and_rivals_of_stages_exist():
    for stage in STAGES:
        assert set(stage.contenders) <= CONTENDERS.keys() and set(stage.goals) <= set(stage.contenders)
        rows = {name: {"precision": figures.precision(stage, name, 16), "median": 1.0} for name in stage.contenders}
        for name, (_, of_rival) in stage.goals.items():
            assert of_rival is None or figures.fastest_rival(name, rows), stage.name


def test_what_the_machine_lacks():
    assert lacking_instructions(CONTENDERS, ["avx512_bf16"], True) == {}
    lacking = lacking_instructions(CONTENDERS, ["avx512_bf16"], False)
    assert lacking == {BFLOAT16: "avx512_bf16", "ours int8, int8 activations": "avx512_bf16"}
    assert lacking_instructions(CONTENDERS, ["avx2"], True) == {**lacking, OPENVINO["bfloat16"]: "avx512_bf16"}


def test_interpreters_of_rivals():
    with pytest.raises(ValueError, match="'moon' is no rival of the benchmark; choose torch, openvino, llama.cpp"):
        rivals.interpreters({"moon": ""})
    assert rivals.interpreters({}) == {}
    with pytest.raises(ValueError, match="'openvino' is no rival of the benchmark; choose torch$"):
        rivals.interpreters({"openvino": ""}, rivals.TRAINING_PACKAGES)


def test_a_rival_that_is_not_installed(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match=f"openvino and PIL are not installed for {python}, so openvino can't run"):
        rivals.interpreters({"openvino": str(python)})
