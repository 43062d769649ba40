"""Report of a training data set: a table, the first samples as text, faults, and histograms of lengths and tiles.

In: samples or packs as `cli.dataset` yields them. Out: text on a console, and a picture file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paddle_internvl import plotting
from paddle_internvl.prompt.encode import IGNORED
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT

_MAX_FAULTS = 20  # shown; --json has all


def show(samples: Iterable[dict], tokenizer, console, shown: int, plot: Path | None) -> None:
    """Print the report.

    Args:
        samples: sample dicts, packs, or dicts with an `error`.
        tokenizer: of the checkpoint.
        console: a rich console.
        shown: number of samples printed as text.
        plot: picture file of the histograms; None: none.
    """
    from rich.text import Text

    rows: dict[str, list[tuple[int, int, int]]] = {}
    faults: dict[str, int] = {}
    messages: list[str] = []
    for number, sample in enumerate(samples):
        name = sample.get("dataset", "packs")
        rows.setdefault(name, [])
        if "error" in sample:
            faults[name] = faults.get(name, 0) + 1
            messages.append(sample["error"])
            continue
        if sum(map(len, rows.values())) < shown:
            title = f"{name}, line {sample['index'] + 1}" if "index" in sample else f"pack {number + 1}"
            console.print(Text(title, style="bold"), _text(sample, tokenizer, bool(console.color_system)), sep="\n")
        rows[name].append(_figures(sample))
    console.print(_table(rows, faults))
    for message in messages[:_MAX_FAULTS]:
        console.print(Text(message, style="red"))
    if len(messages) > _MAX_FAULTS:
        console.print(f"… and {len(messages) - _MAX_FAULTS} more; --json has all of them")
    if plot:
        _draw([row for part in rows.values() for row in part], plot)
        console.print(f"histograms: {plot}")


def _figures(sample: dict) -> tuple[int, int, int]:
    """Tokens, learnt tokens and tiles of a sample."""
    return len(sample["input_ids"]), int((np.asarray(sample["labels"]) != IGNORED).sum()), int(sum(sample["num_tiles"]))


def _text(sample: dict, tokenizer, coloured: bool):
    """The sample's text, its learnt tokens marked, and its visual tokens as their number."""
    from rich.text import Text

    context = tokenizer.convert_tokens_to_ids(IMG_CONTEXT)
    ids, learnt = np.asarray(sample["input_ids"]), np.asarray(sample["labels"]) != IGNORED
    kinds = np.where(ids == context, 2, learnt.astype(int))
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(ids)]
    text = Text()
    for start, end in zip(edges, edges[1:]):
        if kinds[start] == 2:
            text.append(f"[{end - start} visual tokens]", style="dim")
            continue
        part = tokenizer.decode(ids[start:end].tolist())
        if kinds[start]:
            text.append(part if coloured else f"⟦{part}⟧", style="green")
        else:
            text.append(part)
    return text


def _table(rows: dict[str, list[tuple[int, int, int]]], faults: dict[str, int]):
    from rich.table import Table

    table = Table(
        "data set", *(column for column in ("samples", "faults", "tokens", "mean", "longest", "learnt", "tiles"))
    )
    for name, figures in rows.items():
        tokens, learnt, tiles = np.array(figures, np.int64).reshape(-1, 3).T
        mean, longest = (f"{tokens.mean():.0f}", str(tokens.max())) if len(tokens) else ("-", "-")
        share = f"{learnt.sum() / tokens.sum():.0%}" if tokens.sum() else "-"
        table.add_row(
            name, str(len(tokens)), str(faults.get(name, 0)), str(tokens.sum()), mean, longest, share, str(tiles.sum())
        )
    return table


def _draw(figures: list[tuple[int, int, int]], file: Path) -> None:
    tokens, _, tiles = np.array(figures, np.int64).reshape(-1, 3).T
    figure = plotting.new_figure(9, 3.5)
    for axes, values, name in zip(figure.subplots(1, 2), (tokens, tiles), ("tokens", "tiles")):
        axes.hist(values, bins=min(40, max(1, len(set(values.tolist())))), color=plotting.BLUE)
        axes.set(xlabel=f"{name} of a sample", ylabel="samples")
    plotting.save(figure, file)
