"""Files of a run: the journal of answers, and the table of predictions under VLMEvalKit's file name.

In: items and their answers. Out: `<model>_<benchmark>.jsonl`, a line for each answered row, appended as rows are
answered and sorted when all are; and `<model>_<benchmark>.tsv`, the table that VLMEvalKit's own `vlmutil eval` reads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from paddle_internvl.evaluation.item import Index, Item
from paddle_internvl.jsonl import append_objects, complete_file, read_objects


class RunError(ValueError):
    """A run that can't go on: its files belong to another model, data set or setting."""


@dataclass(frozen=True)
class Row:
    """An answered row.

    Attributes:
        index: of the item.
        prompt: text that the model was sent.
        answer: text of the model.
        prediction: text that is scored.
        finish_reason: 'stop', or 'length' where the answer was cut at the token limit.
    """

    index: Index
    prompt: str
    answer: str
    prediction: str
    finish_reason: str | None


class RunFiles:
    """Files of a run of one benchmark.

    Args:
        folder: of the model's runs.
        model: name in the files' names.
        benchmark: name of it.
        settings: all that an answer depends on; kept in `<model>_<benchmark>.settings.json`.
        overwrite: leave the answers of an earlier run.
    Attributes:
        rows: the answered rows, by index.
    Raises:
        RunError: the folder has answers of other settings.
    """

    def __init__(self, folder: Path, model: str, benchmark: str, settings: Mapping, overwrite: bool = False):
        stem = folder / f"{model}_{benchmark}"
        self.journal = stem.with_name(f"{stem.name}.jsonl")
        self.table = stem.with_name(f"{stem.name}.tsv")
        self.score = stem.with_name(f"{stem.name}.score.json")
        self._settings = stem.with_name(f"{stem.name}.settings.json")
        if overwrite:
            for file in (self._settings, self.journal, self.table, self.score):
                file.unlink(missing_ok=True)
        self._check(json.loads(json.dumps(settings)))
        self.rows: dict[Index, Row] = {line["index"]: Row(**line) for line in read_objects(self.journal)}

    def _check(self, settings: dict) -> None:
        if self._settings.is_file():
            earlier = json.loads(self._settings.read_text(encoding="utf-8"))
            changed = sorted(name for name in {*earlier, *settings} if earlier.get(name) != settings.get(name))
            if changed:
                raise RunError(
                    f"{self.journal} is of a run with another {', '.join(changed)}; "
                    "--overwrite starts anew, --work-dir names another folder"
                )
            return
        with complete_file(self._settings) as stream:
            json.dump(settings, stream, ensure_ascii=False, indent=2)

    def append(self, row: Row) -> None:
        """Append an answered row to the journal."""
        append_objects(self.journal, [asdict(row)])
        self.rows[row.index] = row

    def finish(self, items: Sequence[Item]) -> None:
        """Sort the journal into the order of the items, and write the table of predictions.

        Args:
            items: every row that was to be answered.
        """
        rows = dict(self.rows)
        answered = [(item, rows.pop(item.index)) for item in items if item.index in rows]
        with complete_file(self.journal) as stream:
            for row in [*(row for _, row in answered), *rows.values()]:  # a run with a limit keeps the rows beyond it
                stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        columns = list(dict.fromkeys(name for item in items for name in item.columns if name != "prediction"))
        columns = ["index", *(name for name in columns if name != "index"), "prediction"]
        with complete_file(self.table) as stream:
            table = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", restval="")
            table.writeheader()
            for item, row in answered:
                table.writerow({**item.columns, "index": item.index, "prediction": row.prediction})
