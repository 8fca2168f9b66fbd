"""Aligns the columns of a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Row: TypeAlias = Sequence[str]


def aligned(header: Row, rows: Sequence[Row], *, text_columns: int) -> list[str]:
    """Returns the lines of a table, the header first.

    Args:
        header: Name of each column; a column without a name holds text.
        rows: Cells of each line.
        text_columns: Number of leading columns that are aligned left; the later ones hold numbers, aligned right.

    >>> aligned(("device", "seconds", ""), [("cpu", "10.5", "as asked")], text_columns=1)
    ['device  seconds', 'cpu        10.5  as asked']
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    is_text = [column < text_columns or not name for column, name in enumerate(header)]
    return [
        "  ".join(
            f"{cell:<{width}}" if left else f"{cell:>{width}}"
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
