"""Benchmarks of the user: rows of a YAML, JSON or Python file beside those of the table."""

import dataclasses
import difflib
import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_internvl.evaluation.benchmark import Benchmark, UpstreamTask
from paddle_internvl.evaluation.benchmarks import BENCHMARKS


def all_benchmarks(file: Path | None = None) -> dict[str, Benchmark]:
    """The benchmarks of the table and those of a file, by name; the file's row replaces one of the same name.

    Args:
        file: .yaml, .yml or .json with a list of rows (fields of `Benchmark`; `like` names the row whose fields are
            the defaults), or .py with a sequence `BENCHMARKS` of `Benchmark`; None: none.
    Raises:
        ValueError: the file can't be read as such; names the file and the row.
    """
    if file is None:
        return dict(BENCHMARKS)
    rows = _python_rows(file) if file.suffix == ".py" else [_row(file, i, row) for i, row in enumerate(_parsed(file))]
    return BENCHMARKS | {row.name: row for row in rows}


def find_benchmark(name: str, file: Path | None = None) -> Benchmark:
    """The benchmark of a name.

    Raises:
        ValueError: no such benchmark; names the nearest ones.
    """
    benchmarks = all_benchmarks(file)
    if name in benchmarks:
        return benchmarks[name]
    by_lower = {key.lower(): key for key in benchmarks}
    near = [by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, 3)]
    hint = f"did you mean {', '.join(near)}?" if near else "`paddle-internvl eval list` shows the names"
    raise ValueError(f"there is no benchmark {name!r}; {hint}")


def _python_rows(file: Path) -> Sequence[Benchmark]:
    try:
        rows = runpy.run_path(str(file)).get("BENCHMARKS")
    except Exception as error:  # whatever the user's program raises
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Benchmark) for row in rows):
        raise ValueError(f"{file}: BENCHMARKS must be a list or tuple of `Benchmark`")
    return rows


def _parsed(file: Path) -> list:
    import yaml

    form, parse = ("JSON", json.loads) if file.suffix == ".json" else ("YAML", yaml.safe_load)
    try:
        rows = parse(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is no {form}: {error}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{file}: the file must hold a list of benchmarks")
    return rows


def _row(file: Path, number: int, fields: Mapping) -> Benchmark:
    place = f"{file}, benchmark {number}"
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        raise ValueError(f"{place}: a benchmark is an object with a 'name'")
    fields = dict(fields)
    like = fields.pop("like", None)
    if like is not None and like not in BENCHMARKS:
        raise ValueError(f"{place}: like: there is no benchmark {like!r}")
    unknown = fields.keys() - {field.name for field in dataclasses.fields(Benchmark)}
    if unknown:
        raise ValueError(f"{place}: unknown fields {', '.join(sorted(unknown))}")
    try:
        if isinstance(fields.get("upstream"), Mapping):
            fields["upstream"] = UpstreamTask(**fields["upstream"])
        if like is None:
            return Benchmark(**fields)
        inherited = {"cards": {}, "rows": None, "upstream": None, "file": f"{fields['name']}.tsv"}
        return dataclasses.replace(BENCHMARKS[like], **inherited | fields)
    except TypeError as error:
        raise ValueError(f"{place}: {error}") from None
