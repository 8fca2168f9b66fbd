"""Prints the results of building and of checking engines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbi_engines.engine_files import EngineRecord
from hbi_export.report import wide_console
from hbi_export.tensorrt.build import EngineCheck


@contextmanager
def build_progress() -> Iterator[Callable[[str, str], None]]:
    """Shows the graph and the phase of a build on stderr: a line that changes on a terminal, else a line a graph."""
    console = Console(stderr=True)
    if not console.is_terminal:
        seen: set[str] = set()

        def tell(graph: str, _phase: str) -> None:
            if graph not in seen:
                seen.add(graph)
                sys.stderr.write(f"building {graph}\n")

        yield tell
        return
    with console.status("starting") as status:
        yield lambda graph, phase: status.update(Text(f"{graph}: {phase}"))


def show_records(records: Sequence[EngineRecord]) -> None:
    """Prints a table of engines that were built."""
    table = Table("graph", "runs with", "on", "precision", "batch", "layers", "plugins", "MB", "seconds")
    for record in records:
        table.add_row(
            record.graph,
            f"{record.flavor} {record.version}",
            record.gpu or ", ".join(record.compute_capabilities),
            record.precision,
            str(next((ranges for name, ranges in record.ranges.items() if name == record.inputs[0].shape[0]), "")),
            str(record.layers),
            ", ".join(map(str, record.plugins)) or "none",
            f"{record.size_bytes / 1e6:.1f}",
            f"{record.build_seconds:.1f}",
        )
    wide_console().print(table)


def show_engine_checks(checks: Sequence[EngineCheck]) -> None:
    """Prints which engines can be used here, and why the others cannot."""
    table = Table("engine", "usable", "why not")
    for check in checks:
        table.add_row(check.file, "no" if check.problem else "yes", Text(check.problem))
    wide_console().print(table)
