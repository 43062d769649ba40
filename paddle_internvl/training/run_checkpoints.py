"""Checkpoints of a training run: save and resume model, optimizer, schedule, random numbers and position in the data.

A checkpoint is a folder OUTPUT/checkpoint-<step>, which `chat` takes like OUTPUT itself: the whole model, or the
adapters of a LoRA run. Beside it lie the state of each rank's optimizer and random generators. Any number of ranks can
resume from it, as long as the samples of an optimizer step stay the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import distributed
from paddlenlp.trainer import TrainerCallback

from paddle_internvl.parallel.gloo_groups import wait_for_ranks
from paddle_internvl.training import checkpoint_folders
from paddle_internvl.training.optimizer_state import SavedState, write_state

_TRAINER_STATE = "trainer_state.json"  # PaddleNLP's name: its Trainer reads the step from it


class RunCheckpoints(TrainerCallback):
    """Saves and loads the checkpoints of a run.

    Args:
        trainer: an `SftTrainer`.
        settings: arguments that a resumed run must have in common with the run that saved.
    """

    def __init__(self, trainer, settings: Mapping):
        self._trainer, self._settings = trainer, dict(settings)

    @property
    def _output(self) -> Path:
        return Path(self._trainer.args.output_dir)

    # ---------------------------------------------------------------------------------------------------- saving
    def save(self) -> None:
        """Save the state after the current step. Every rank calls it at the same time."""
        trainer, args = self._trainer, self._trainer.args
        folder = self._output / f"{checkpoint_folders.PREFIX}{trainer.state.global_step}"
        first = trainer.is_world_process_zero()
        if first:
            if folder.exists():
                checkpoint_folders.remove(folder)
            folder.mkdir(parents=True)
        wait_for_ranks()
        if first or (trainer.sharded and args.data_parallel_rank == 0):
            file = folder / _numbered("optimizer", args.process_index, "safetensors")
            write_state(file, trainer.adamw, self._names(), trainer.shards)
        paddle.save(_random_state(), str(folder / _numbered("random", args.process_index, "pdstate")))
        data = folder / _numbered("data", args.process_index, "json")
        data.write_text(json.dumps(trainer.batches.state_dict()), encoding="utf-8")
        trainer.save_trained(str(folder))
        if first:
            trainer.state.save_to_json(str(folder / _TRAINER_STATE))
        wait_for_ranks()
        if first:
            mark = {"step": trainer.state.global_step, "ranks": args.world_size, "settings": self._settings}
            mark["loss"] = trainer.loss_state()
            checkpoint_folders.write_mark(folder, mark)
            checkpoint_folders.remove_old(self._output, args.save_total_limit)
        wait_for_ranks()

    # ---------------------------------------------------------------------------------------------------- resuming
    def find(self, resume_from_checkpoint: str | bool | None = "auto") -> str | None:
        """The checkpoint to resume from, the same on every rank; incomplete checkpoints of OUTPUT are deleted.

        Args:
            resume_from_checkpoint: 'auto', True or None: the newest whole checkpoint of OUTPUT; False: start anew,
                which deletes the checkpoints of OUTPUT if `overwrite_output_dir` is True; or a folder, whose run may
                have had other settings.
        Returns:
            The folder; None: start anew.
        Raises:
            ValueError: a folder without a whole checkpoint, a run with other settings, or checkpoints in the way.
        """
        wait_for_ranks()
        found = [self._find(resume_from_checkpoint) if self._trainer.is_world_process_zero() else None]
        if distributed.is_initialized():
            distributed.broadcast_object_list(found, src=0)
        return found[0]

    def _find(self, resume_from_checkpoint: str | bool | None) -> str | None:
        if resume_from_checkpoint in (False, "False"):
            old = list(checkpoint_folders.checkpoints(self._output).values())
            if old and not self._trainer.args.overwrite_output_dir:
                raise ValueError(
                    f"{old[-1]} is of an earlier run; overwrite_output_dir True deletes it, "
                    "resume_from_checkpoint auto continues it, or give another output_dir"
                )
            for folder in old:
                checkpoint_folders.remove(folder)
            return None
        if resume_from_checkpoint not in (None, True, "auto", "True"):
            if not checkpoint_folders.read_mark(Path(resume_from_checkpoint)):
                raise ValueError(f"resume_from_checkpoint: {resume_from_checkpoint} holds no whole checkpoint of a run")
            return str(resume_from_checkpoint)
        checkpoint_folders.remove_incomplete(self._output)
        folder = checkpoint_folders.newest(self._output)
        if folder is None:
            return None
        saved = checkpoint_folders.read_mark(folder)["settings"]
        for name in sorted(saved.keys() | self._settings.keys()):
            if saved.get(name) != self._settings.get(name):
                raise ValueError(
                    f"{folder} is of a run with {name}={saved.get(name)!r}, this run has {self._settings.get(name)!r}; "
                    f"give resume_from_checkpoint {folder} to continue it all the same, or another output_dir"
                )
        return str(folder)

    def load_parameters(self, folder: str) -> None:
        """Fill the trained parameters."""
        parameters = {name: p for name, p in self._trainer.model.named_parameters() if not p.stop_gradient}
        with _saved_state(folder) as state:
            state.load_parameters(parameters, self._trainer.shards)
        if self._trainer.shards is not None:
            self._trainer.shards.update_whole()

    def load_optimizer(self, folder: str) -> None:
        """Fill the state of the optimizer, of the schedule and of the loss."""
        with _saved_state(folder) as state:
            state.load_optimizer(self._trainer.adamw, self._names(), self._trainer.shards)
        self._trainer.lr_scheduler.step(step_of(folder))
        self._trainer.load_loss_state(checkpoint_folders.read_mark(Path(folder)).get("loss") or {})

    def on_train_begin(self, args, state, control, **_trainer):
        """Move the data to the micro-batch that comes next, and restore the random generators of a resumed run."""
        batches, accumulation = self._trainer.batches, args.gradient_accumulation_steps
        batches.start, batches.stop = state.global_step * accumulation, state.max_steps * accumulation
        if self._trainer.resumed_from is not None:
            folder = Path(self._trainer.resumed_from)
            batches.load_state_dict(_data_state(folder, args.process_index, args.world_size))
            _restore_random_state(folder, args.process_index)

    def _names(self) -> dict[str, str]:
        return {p.name: name for name, p in self._trainer.model.named_parameters()}


def step_of(folder: str) -> int:
    """Optimizer steps before a whole checkpoint."""
    return checkpoint_folders.read_mark(Path(folder))["step"]


def _numbered(kind: str, rank: int, suffix: str) -> str:
    return f"{kind}-{rank:05d}.{suffix}"


def _saved_state(folder: str) -> SavedState:
    return SavedState(sorted(Path(folder).glob("optimizer-*.safetensors")))


def _data_state(folder: Path, rank: int, ranks: int) -> dict | None:
    """State of a rank's batches; None if the run was saved on another number of ranks."""
    if checkpoint_folders.read_mark(folder)["ranks"] != ranks:
        return None
    return json.loads((folder / _numbered("data", rank, "json")).read_text(encoding="utf-8"))


def _random_state() -> dict:
    generators = [generator.get_state() for generator in _generators()]
    return {"python": random.getstate(), "numpy": np.random.get_state(), "paddle": generators}


def _generators() -> list:
    """Paddle's random generators of this process: the CPU's, and that of its card."""
    kind, _, number = paddle.get_device().partition(":")
    card = [paddle.framework.core.default_cuda_generator(int(number))] if kind == "gpu" else []
    return [paddle.framework.core.default_cpu_generator(), *card]


def _restore_random_state(folder: Path, rank: int) -> None:
    """Restore the random generators of a rank; a rank that the saving run did not have takes another rank's."""
    files = sorted(folder.glob("random-*.pdstate"))
    state = paddle.load(str(files[rank % len(files)]), return_numpy=True)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    for generator, saved in zip(_generators(), state["paddle"]):
        generator.set_state(saved)
