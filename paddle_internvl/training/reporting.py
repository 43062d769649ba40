"""Progress of a training run: a bar, VisualDL or TensorBoard, a plot of the loss, a summary.

In: the lines of metrics.jsonl. Out: a bar on stderr, event files, a picture, text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from paddlenlp.trainer import TrainerCallback

from paddle_internvl import plotting
from paddle_internvl.progress import bar
from paddle_internvl.training.metrics import MetricsWriter

_WRITERS = {"visualdl": ("visualdl", "LogWriter"), "tensorboard": ("tensorboardX", "SummaryWriter")}


def reporters(report_to: str | Sequence[str] | None) -> list[str]:
    """The reporters of `report_to`: of 'visualdl' and 'tensorboard'; 'none' and None: none.

    Raises:
        ValueError: another name, or a package that is not installed.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    names = [name for name in names if name != "none"]
    for name in names:
        if name not in _WRITERS:
            raise ValueError(f"report_to={name!r}; supported: {', '.join(_WRITERS)}, none")
        package = _WRITERS[name][0]
        if find_spec(package) is None:
            raise ValueError(f"report_to={name!r} needs {package}; pip install {package}, or report_to none")
    return names


class Reporting(TrainerCallback):
    """Shows the metrics of each step on a progress bar, and writes them for VisualDL and TensorBoard; on rank 0.

    Args:
        metrics: whose lines are shown.
        report_to: of `reporters`.
    """

    def __init__(self, metrics: MetricsWriter, report_to: Sequence[str] = ()):
        self._metrics, self._report_to = metrics, report_to
        self._bar = None
        self._writers: list = []

    def on_train_begin(self, args, state, control, **_trainer):
        """Open bar and event files."""
        if state.is_world_process_zero:
            self._bar = bar("training", state.max_steps, "step")
            self._bar.update(state.global_step)
            classes = [getattr(import_module(_WRITERS[name][0]), _WRITERS[name][1]) for name in self._report_to]
            self._writers = [writer(logdir=args.logging_dir) for writer in classes]

    def on_step_end(self, args, state, control, **_trainer):
        """Show the step."""
        if self._bar is None:
            return
        line = self._metrics.lines[-1]
        self._bar.set_postfix(**postfix(line), refresh=False)
        self._bar.update(1)
        for writer in self._writers:
            for name, value in scalars(line).items():
                writer.add_scalar(f"train/{name}", value, line["step"])

    def close(self) -> None:
        """Close bar and event files."""
        for opened in (self._bar, *self._writers):
            if opened is not None:
                opened.close()


def scalars(line: Mapping) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, and its rates."""
    seconds = max(line["seconds"], 1e-9)
    rates = {"tokens_per_second": line["tokens"] / seconds, "tiles_per_second": line["tiles"] / seconds}
    return {**{name: value for name, value in line.items() if name != "step"}, **rates}


def postfix(line: Mapping) -> dict[str, str]:
    """What the progress bar shows of a line of metrics.jsonl."""
    values = scalars(line)
    return {
        "loss": f"{line['loss']:.4f}",
        "tokens/s": f"{values['tokens_per_second']:.0f}",
        "tiles/s": f"{values['tiles_per_second']:.1f}",
        **({"accuracy": f"{line['rewards/accuracies']:.2f}"} if "rewards/accuracies" in line else {}),
    }


def summary(lines: Sequence[Mapping]) -> str:
    """Summary of a run, by the lines of its metrics.jsonl."""
    seconds = max(sum(line["seconds"] for line in lines), 1e-9)
    tokens, learnt, tiles = (sum(line[name] for line in lines) for name in ("tokens", "learnt_tokens", "tiles"))
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{len(lines)} steps, {lines[-1]['epoch']:.2f} epochs, {minutes} min {rest} s; "
        f"loss {lines[0]['loss']:.4f} -> {lines[-1]['loss']:.4f}; "
        f"{tokens} tokens ({tokens / seconds:.0f}/s), {learnt} of them learnt, {tiles} tiles ({tiles / seconds:.1f}/s)"
    )


def plot_loss(lines: Sequence[Mapping], file: Path) -> None:
    """Draw loss and learning rate over the steps into a picture file; of preference optimisation the rewards, too."""
    rewarded = [line for line in lines if "rewards/margins" in line]
    figure = plotting.new_figure(8, 9 if rewarded else 5)
    axes, *rest = figure.subplots(2 if rewarded else 1, squeeze=False).flat
    for rewards in rest:
        for name in ("chosen", "rejected", "margins"):
            values = [line[f"rewards/{name}"] for line in rewarded]
            rewards.plot([line["step"] for line in rewarded], values, label=name)
        rewards.set(xlabel="step", ylabel="reward")
        rewards.legend()
    steps = [line["step"] for line in lines]
    axes.plot(steps, [line["loss"] for line in lines], color=plotting.BLUE)
    axes.set(xlabel="step", ylabel="loss")
    rates = axes.twinx()
    rates.plot(steps, [line["learning_rate"] for line in lines], color=plotting.GREY, linestyle="--")
    rates.set(ylabel="learning rate")
    plotting.save(figure, file)
