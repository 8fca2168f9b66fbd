"""Prints the results of quantising and of checking."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbi_export.precision.compared_model import ComparedModel
from hbi_export.precision.gate import PrecisionReport
from hbi_export.precision.quantize import QuantizedBundle
from hbi_export.report import wide_console
from hbi_infer.render.stdout import printable


def tell_model(model: ComparedModel) -> None:
    """Writes a line to stderr before a model is measured, which can take minutes."""
    sys.stderr.write(f"measuring {printable(str(model))}\n")


def show(report: PrecisionReport) -> None:
    """Prints a table of outputs and one of metrics."""
    tensors = Table("model", "device", "graph", "output", "largest difference", "median cosine", "smallest")
    metrics = Table("model", "device", "metric", "reference", "here", "change", "")
    for part in report.comparisons:
        names = Text(printable(part.model.name)), part.model.device
        for check in part.checks:
            cosines = f"{check.median_cosine:.5f}", f"{check.cosine:.5f}"
            tensors.add_row(*names, check.graph, check.output, f"{check.largest_difference:.1e}", *cosines)
        for name, change in part.changes.items():
            figures = (f"{part.reference[name]:.2f}", f"{part.metrics[name]:.2f}", f"{change:+.2f}")
            metrics.add_row(*names, name, *figures, "" if change >= -report.max_drop else "refused")
    console = wide_console()
    console.print(tensors, metrics)
    console.print(
        printable(
            f"reference: {report.reference}; {report.num_clips} clips; "
            "differences are parts of an output's largest value"
        ),
        *report.caveats,
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def show_json(report: PrecisionReport) -> None:
    """Prints the same and more as JSON."""
    print(json.dumps(report.to_json(), indent=2))  # noqa: T201 - the result


def show_written(made: QuantizedBundle, folder: Path, report: PrecisionReport | None) -> None:
    """Prints the bundle's path and size, the precision of its graphs, and whether it was measured."""
    console = Console()
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    lines = [f"{printable(str(folder))}: {size_bytes / 1e6:.1f} MB"]
    for name, spec in made.manifest.graphs.items():
        lines.append(f"  {name}: {'as it was, ' if name in made.unchanged else ''}{spec.precision}")
    if report is None:
        lines.append("not measured: --data DIR refuses a bundle that does worse, and so does hbi-export check")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
