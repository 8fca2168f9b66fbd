"""Prints the result of an export, and tables that do not wrap in pipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hbi_export.graphs.parity import OutputCheck
from hbi_infer.render.stdout import printable

PLAIN_WIDTH = 140
"""Width of tables in a pipe or a file, where no window limits them."""


def wide_console() -> Console:
    """Returns a console on stdout on which no column wraps for want of a window."""
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def show_checks(checks: Sequence[OutputCheck], bundle: Path) -> None:
    """Prints how each output compares with the model, and the bundle's path and size."""
    table = Table("graph", "inputs", "output", "largest difference", "smallest cosine", "items beyond")
    for check in checks:
        difference, cosine = f"{check.largest_difference:.1e}", f"{check.cosine:.7f}"
        beyond = f"{check.items_beyond} of {check.items}"
        table.add_row(check.graph, check.inputs, check.output, difference, cosine, beyond)
    console = wide_console()
    console.print(table)
    size_bytes = sum(file.stat().st_size for file in bundle.iterdir())
    console.print(f"{printable(str(bundle))}: {size_bytes / 1e6:.1f} MB", markup=False, highlight=False)
