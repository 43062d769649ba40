"""HTML report of a run: picture, prompt, reference, answer and verdict of every row, in one file to look through.

In: the scores, the journal and the items of a benchmark. Out: a page that needs no network. Texts of models and data
sets are escaped, and the page's content security policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from paddle_internvl.evaluation.item import Item
from paddle_internvl.evaluation.run_scores import RunScores, answers_of
from paddle_internvl.media.data_urls import encode_data_url
from paddle_internvl.media.images import open_image

_JPEG_QUALITY = 80
VERDICTS = ("right", "between", "wrong", "none", "unanswered")
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; color: #1b1b1b; background: #f4f4f4; }
header { position: sticky; top: 0; padding: .6em 1em; background: #fff; border-bottom: 1px solid #ccc; }
h1 { font-size: 1.1em; margin: 0 0 .3em; }
label { margin-right: 1em; white-space: nowrap; }
article { display: grid; grid-template-columns: minmax(8em, 22em) 1fr; gap: 1em; margin: 1em; padding: 1em;
  background: #fff; border-left: .4em solid #888; content-visibility: auto; contain-intrinsic-size: auto 18em; }
.right { border-color: #1a7f37; } .between { border-color: #9a6700; } .wrong { border-color: #cf222e; }
img { max-width: 100%; } dt { font-weight: 600; margin-top: .5em; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 20em; overflow: auto; }
h2 { font-size: 1em; margin: 0; } [hidden] { display: none; }
@media (max-width: 40em) { article { grid-template-columns: 1fr; } }
"""
_SCRIPT = """
const rows = [...document.querySelectorAll("article")];
const boxes = [...document.querySelectorAll("header input[type=checkbox]")];
const search = document.querySelector("header input[type=search]");
const shown = document.querySelector("output");
function filter() {
  const verdicts = new Set(boxes.filter(box => box.checked).map(box => box.value));
  const words = search.value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    row.hidden = !verdicts.has(row.className) || !row.textContent.toLowerCase().includes(words);
    count += !row.hidden;
  }
  shown.textContent = `${count} of ${rows.length} rows`;
}
for (const control of [...boxes, search]) control.addEventListener("input", filter);
filter();
"""


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY = f"default-src 'none'; img-src data:; style-src {_source_hash(_STYLE)}; script-src {_source_hash(_SCRIPT)}"


def write_report(
    run: RunScores, benchmark: str, items: Iterable[Item], stream: TextIO, only: str | None = None, side: int = 320
) -> Counter:
    """Write the report of a benchmark; the rows are streamed.

    Args:
        run: scores, in whose folder the journal of answers lies.
        benchmark: name.
        items: rows of the data, with their pictures.
        stream: gets the page.
        only: one of `VERDICTS`, whose rows are written; None: all.
        side: longest side of the embedded pictures in pixels.
    Returns:
        Rows by verdict, and `broken`: pictures that can't be opened.
    Raises:
        ValueError: the run has no score or no answers of the benchmark, or it was scored on other data.
    """
    if benchmark not in run.documents:
        raise ValueError(f"{run.folder} has no {run.model}_{benchmark}.score.json")
    document, answers = run.documents[benchmark], answers_of(run, benchmark)
    if not answers:
        raise ValueError(f"{run.folder} has no answers, {run.model}_{benchmark}.jsonl (or .xlsx, .tsv, .json)")
    kinds = {index: _kind(row["verdict"], index in answers) for index, row in document["rows"].items()}
    counts = Counter(kinds.values())
    missing = set(kinds)  # rows that the data has to hold; of a run with --limit the data holds more
    stream.write(_head(run.model, document, counts))
    for item in items:
        index = str(item.index)
        missing.discard(index)
        if index in kinds and only in (None, kinds[index]):
            row, line = document["rows"][index], answers.get(index, {})
            pictures, broken = _pictures(item, side)
            counts["broken"] += broken
            stream.write(_article(item, kinds[index], row["verdict"], pictures, _texts(item, row, line)))
    if missing:
        raise ValueError(f"row {min(missing)} of {run.model}_{benchmark}.score.json is not in the data; name its data")
    stream.write(f"</main><script>{_SCRIPT}</script></body></html>\n")
    return counts


def _kind(verdict: float | None, is_answered: bool) -> str:
    if not is_answered:
        return "unanswered"
    return "none" if verdict is None else {0: "wrong", 1: "right"}.get(verdict, "between")


def _head(model: str, document: Mapping, counts: Counter) -> str:
    name, headline = html.escape(document["benchmark"]), document["headline"]
    title = f"{html.escape(model)} on {name}"
    figure = "no headline figure" if headline is None else f"{headline:.2f}"
    rows = (
        f"{document['scored']} of {document['expected']} rows answered, by the rules {html.escape(document['rules'])}"
    )
    boxes = "".join(
        f'<label><input type="checkbox" value="{kind}" checked> {kind} ({counts[kind]})</label>'
        for kind in VERDICTS
        if counts[kind]
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><header>'
        f"<h1>{title}: {figure} ({rows})</h1>{boxes}"
        '<label>Search <input type="search"></label><output></output></header><main>\n'
    )


def _texts(item: Item, row: Mapping, line: Mapping) -> Iterator[tuple[str, str]]:
    """Names and texts of a row, in the order of the page."""
    prediction = line.get("prediction")
    yield "category", ", ".join(text for text in (item.split, item.category) if text not in ("", "none"))
    yield "prompt", line.get("prompt") or item.question
    yield "reference", "" if item.answer is None else item.answer
    yield "answer", line.get("answer", "")
    yield "prediction", "" if prediction in (None, line.get("answer")) else prediction
    yield "extracted", row["extracted"] or ""
    yield "clip", "" if item.clip is None else str(item.clip.path)


def _article(item: Item, kind: str, verdict: float | None, pictures: str, texts: Iterable[tuple[str, str]]) -> str:
    shown = kind if verdict is None or kind != "between" else f"{verdict:g}"
    lines = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in texts if text)
    index = html.escape(str(item.index))
    return (
        f'<article class="{kind}"><div>{pictures}</div>'
        f"<div><h2>row {index}: {shown}</h2><dl>{lines}</dl></div></article>\n"
    )


def _pictures(item: Item, side: int) -> tuple[str, int]:
    """Pictures of a row as HTML, and the number of those that can't be opened."""
    parts, broken = [], 0
    for source in item.pictures:
        try:
            picture = open_image(source)
        except (OSError, ValueError) as error:
            parts.append(f"<p>{html.escape(str(error))}</p>")
            broken += 1
            continue
        picture.thumbnail((side, side))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=_JPEG_QUALITY)
        url = encode_data_url(data.getvalue(), "image/jpeg")
        alt = f"picture of row {html.escape(str(item.index))}"
        parts.append(f'<img alt="{alt}" width="{picture.width}" src="{url}">')
    return "".join(parts), broken
