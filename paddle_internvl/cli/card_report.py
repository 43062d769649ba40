"""`doctor --gpu`: what a card was measured to do, written to a file and shown as tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from paddle_internvl.cli import conventions


def write(
    checkpoint: Path,
    config: Path,
    out: Path,
    findings: Callable[[], list[dict]],
    device: str = "gpu",
    as_json: bool = False,
) -> int:
    """Examine the device, write what was found, and show it.

    Args:
        checkpoint, config: see `verification.card.examine`. out: the file. findings: what `doctor` finds without it.
        device: another than a card is for tests. as_json: print the document instead of showing it.
    Returns:
        The exit code: 1 if something is not as it should be.
    Raises:
        ValueError: there is no card, or nothing to examine it with.
    """
    from paddle_internvl import runtime, startup

    startup.import_paddle()
    device = runtime.choose_device(device)
    for file in (checkpoint / "config.json", config):
        if not file.exists():
            raise ValueError(f"{file} is not there; name what to examine the card with: --checkpoint, --config")
    from paddle_internvl.verification.card import examine

    document, sound = examine(checkpoint, config, device, lambda line: print(f"{line} ...", file=sys.stderr))
    document["findings"] = findings()
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
        return int(not sound)
    _show(document)
    print(f"{'all as it should be' if sound else 'something is off'}; the whole of it is in {out}")
    return int(not sound)


def _show(document: dict) -> None:
    from rich.table import Table

    parity = Table("operation", "probe", "state", "error", "twin's", title="parity")
    for row in document["parity"]:
        figures = ("" if row[name] is None else f"{row[name]:.1e}" for name in ("error", "twin_error"))
        parity.add_row(f"{row['operation']} {row['form']}", row["name"], row["state"], *figures)
    speed = Table("what", "ms", "TFLOP/s", "GB/s", title=f"speed, {document['roofline']['config']}")
    for row in document["roofline"]["rows"]:
        figures = f"{row['seconds'] * 1e3:.2f}", f"{row['flops'] / 1e12:.3f}", f"{row['bytes'] / 1e9:.1f}"
        speed.add_row(row["what"], *figures)
    console = conventions.console()
    console.print(parity)
    console.print(speed)
    answers = document["answers"]
    console.print(f"answers as on a CPU: {answers['same']}; in a batch as alone: {answers['batch_same']}")
