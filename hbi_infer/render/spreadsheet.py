"""Writes rows as comma-separated values that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_BEGINS_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""Start of a cell that a spreadsheet may run; the last four are the wide signs of East Asian keyboards."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)")


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    r"""Returns rows as comma-separated values, a line each.

    A cell that begins as a formula does gets an apostrophe in front; numbers are left as they are.

    >>> csv_text([("=1+1", "-0.5", "a, b")])
    '\'=1+1,-0.5,"a, b"\n'
    """
    # With its own end of lines the writer puts quotes around cells that hold any part of it.
    buffer = io.StringIO(newline="")
    writer, lines = csv.writer(buffer), []
    for row in rows:
        writer.writerow(map(_harmless, row))
        lines.append(buffer.getvalue().removesuffix("\r\n") + "\n")
        buffer.seek(buffer.truncate(0))
    return "".join(lines)


def _harmless(cell: str) -> str:
    return f"'{cell}" if _BEGINS_FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
