"""Cells of benchmark files that hold Python lists."""

import ast


def list_text(cell: str) -> list[str]:
    """The texts of a cell that holds a Python list, or the cell itself."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    try:
        return [str(part) for part in ast.literal_eval(cell)]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return [cell]  # a text in brackets
