"""What an export says on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hbi_export.graphs.parity import OutputCheck


def show_checks(checks: Sequence[OutputCheck], bundle: Path) -> None:
    """Prints how each output compares with the model, and where the bundle is."""
    table = Table("graph", "inputs", "output", "largest difference", "smallest cosine", "items beyond")
    for check in checks:
        difference, cosine = f"{check.largest_difference:.1e}", f"{check.cosine:.7f}"
        beyond = f"{check.items_beyond} of {check.items}"
        table.add_row(check.graph, check.inputs, check.output, difference, cosine, beyond)
    console = Console()
    if not console.is_terminal:
        console.width = 140  # nobody's window: let no column wrap
    console.print(table)
    size_bytes = sum(file.stat().st_size for file in bundle.iterdir())
    console.print(f"{bundle}: {size_bytes / 1e6:.1f} MB", highlight=False)
