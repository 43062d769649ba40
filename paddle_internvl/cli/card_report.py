"""`doctor --gpu`: report of a card's operators, speed and answers, written to a file and printed as tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli import conventions


def write(
    checkpoint: Path,
    config: Path,
    out: Path,
    findings: Callable[[], list[dict]],
    device: str = "gpu",
    as_json: bool = False,
) -> int:
    """Examine the device, write the report, and print it.

    Args:
        checkpoint: see `verification.card.examine`.
        config: see `verification.card.examine`.
        out: the file.
        findings: those of `doctor` without --gpu.
        device: another than a card is for tests.
        as_json: print the document instead of tables.
    Returns:
        The exit code: EXIT_DIFFERENT if a check failed.
    Raises:
        ValueError: there is no card, or no checkpoint or config to examine it with.
    """
    from paddle_internvl import runtime, startup

    for file in (checkpoint / "config.json", config):
        if not file.exists():
            raise ValueError(f"{file} does not exist; the card is examined with --checkpoint and --config")
    startup.import_paddle()
    device = runtime.choose_device(device)
    from paddle_internvl.verification.card import examine

    document, passed = examine(checkpoint, config, device, lambda line: print(f"{line} ...", file=sys.stderr))
    document["findings"] = findings()
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        _show(document)
        print(f"{'all checks passed' if passed else 'a check failed'}; the whole report is in {out}")
    return EXIT_OK if passed else EXIT_DIFFERENT


def _show(document: dict) -> None:
    from rich.table import Table

    parity = Table("operation", "probe", "state", "error", "reference's", title="parity")
    for row in document["parity"]:
        figures = ("" if row[name] is None else f"{row[name]:.1e}" for name in ("error", "twin_error"))
        parity.add_row(f"{row['operation']} {row['form']}", row["name"], row["state"], *figures)
    speed = Table("operation", "ms", "TFLOP/s", "GB/s", title=f"speed, {document['roofline']['config']}")
    for row in document["roofline"]["rows"]:
        figures = f"{row['seconds'] * 1e3:.2f}", f"{row['flops'] / 1e12:.3f}", f"{row['bytes'] / 1e9:.1f}"
        speed.add_row(row["what"], *figures)
    console = conventions.console()
    console.print(parity)
    console.print(speed)
    answers = document["answers"]
    console.print(f"answers as on a CPU: {answers['same']}; in a batch as alone: {answers['batch_same']}")
