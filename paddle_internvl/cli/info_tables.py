"""The three tables of `info` for people: model, cost, picture, with units.

In: the document of `info --json`. Out: rich tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

_WIDTHS = {  # field of both config parts -> label
    "hidden_size": "hidden size", "num_hidden_layers": "layers", "num_attention_heads": "heads",
    "intermediate_size": "intermediate",
}  # fmt: skip
_CONTEXT = 8192  # tokens of the conversation whose KV cache is shown
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def tables(document: Mapping) -> list[Table]:
    """The tables of a document: model, cost, and picture where it has one."""
    made = [_model(document), _cost(document)]
    return made + ([_picture(document)] if "picture" in document else [])


def bytes_text(count: float) -> str:
    """Bytes with a unit: '14.1 MiB'."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.{2 if count < 10 else 1}f} {_UNITS[unit]}"


def count_text(value) -> str:
    """A value of a config for people."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {count_text(item)}" for key, item in value.items())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(*columns: str) -> Table:
    """A table without lines, whose long cells go on in the next line."""
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", style=None if i else "cyan")
    return table


def _model(document: Mapping) -> Table:
    vision, decoder, parameters = document["vision"], document["decoder"], document["parameters"]
    head_dim = vision["hidden_size"] // vision["num_attention_heads"]
    table = _table("model", "vision tower", "language model")
    table.add_row("class", document["architecture"], document["language model"])
    for name, label in _WIDTHS.items():
        table.add_row(label, count_text(vision[name]), count_text(decoder[name]))
    table.add_row("kv heads", "", count_text(decoder["num_key_value_heads"]))
    table.add_row("head_dim", str(head_dim), str(decoder["head_dim"]))
    table.add_row(
        "input",
        f"tiles of {vision['image_size']} px, patches of {vision['patch_size']} px",
        f"{decoder['vocab_size']:,} words, context {decoder['max_position_embeddings']:,} tokens",
    )
    table.add_row(
        "norm, rope",
        f"{vision['norm_type']}, q and k norm {count_text(vision['qk_normalization'])}",
        f"theta {count_text(decoder['rope_theta'])}, scaling {count_text(decoder['rope_scaling'])}",
    )
    if "experts" in document:
        table.add_row("experts", "", count_text(document["experts"]))
    first, last = document["tiles"]
    table.add_row("picture", f"{first} to {last} tiles, {document['tokens per tile']} tokens each")
    table.add_row("template, dtype", "", f"{document['template']}, {document['dtype']}")
    for name, count in parameters.items():
        table.add_row(f"parameters: {name}", f"{count:,}")
    if document["fields without effect"]:
        table.add_row("fields without effect", count_text(document["fields without effect"]))
    return table


def _cost(document: Mapping) -> Table:
    weights, cache = document["weights bytes"], document["KV cache bytes per token"]
    table = _table("cost", *weights)
    table.add_row("weights", *map(bytes_text, weights.values()))
    table.add_row("KV cache of a token", *map(bytes_text, cache.values()))
    table.add_row(f"KV cache of {_CONTEXT:,} tokens", *(bytes_text(_CONTEXT * size) for size in cache.values()))
    tokens = document["tokens per tile"]
    table.add_row(f"KV cache of a tile ({tokens} tokens)", *(bytes_text(tokens * size) for size in cache.values()))
    return table


def _picture(document: Mapping) -> Table:
    picture, cache = document["picture"], document["KV cache bytes per token"]
    (width, height), (columns, rows) = picture["size"], picture["grid (columns x rows)"]
    table = _table("picture", "")
    table.add_row("size", f"{width} x {height} px")
    table.add_row("grid", f"{columns} x {rows} tiles" + (" and a thumbnail" if picture["thumbnail"] else ""))
    table.add_row("tiles", str(picture["tiles"]))
    table.add_row("visual tokens", f"{picture['visual tokens']:,}")
    sizes = (f"{bytes_text(picture['visual tokens'] * size)} in {dtype}" for dtype, size in cache.items())
    table.add_row("KV cache of them", ", ".join(sizes))
    return table
