"""What quantising and checking say on the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbi_export.precision.compared_model import Side
from hbi_export.precision.gate import PrecisionReport
from hbi_export.precision.quantize import QuantizedBundle
from hbi_export.tensorrt.report import PLAIN_WIDTH


def tell_side(side: Side) -> None:
    """One line on stderr for each side that is measured: that can take minutes."""
    sys.stderr.write(f"measuring {side}\n")


def show(report: PrecisionReport) -> None:
    """A table of outputs and one of metrics."""
    tensors = Table("model", "device", "graph", "output", "largest difference", "median cosine", "smallest")
    metrics = Table("model", "device", "metric", "reference", "here", "change", "")
    for part in report.comparisons:
        names = Text(part.side.name), part.side.device
        for check in part.checks:
            cosines = f"{check.median_cosine:.5f}", f"{check.cosine:.5f}"
            tensors.add_row(*names, check.graph, check.output, f"{check.largest_difference:.1e}", *cosines)
        for name, change in part.changes.items():
            figures = (f"{part.reference[name]:.2f}", f"{part.metrics[name]:.2f}", f"{change:+.2f}")
            metrics.add_row(*names, name, *figures, "" if change >= -report.max_drop else "refused")
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(tensors, metrics)
    console.print(
        f"reference: {report.reference}; {report.num_clips} clips; differences are parts of an output's largest value",
        *report.caveats,
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def show_json(report: PrecisionReport) -> None:
    """The same and more as JSON."""
    print(json.dumps(report.to_json(), indent=2))  # noqa: T201 - the result


def show_written(made: QuantizedBundle, folder: Path, report: PrecisionReport | None) -> None:
    """Where the bundle is, what of it changed, and whether anybody measured it."""
    console = Console()
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    lines = [f"{folder}: {size_bytes / 1e6:.1f} MB"]
    for name, spec in made.manifest.graphs.items():
        lines.append(f"  {name}: {'as it was, ' if name in made.unchanged else ''}{spec.precision}")
    if report is None:
        lines.append("not measured: --data DIR refuses a bundle that does worse, and so does hbi-export check")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
