"""Says what got slower or faster between two results of one benchmark, and fails beyond a factor.

    python benchmarks/compare.py OLD.json NEW.json [--factor 1.2] [--relative-to "python -c pass"]

Two runs on one machine, in turns, can be compared as they are. Between machines only ratios within one run mean
something: `--relative-to` names a figure that both have, by which every time and every rate of its own run is divided.
A cost (time, memory, a ratio to a bound) grows when it gets worse, a rate falls; each ratio of the table is above 1
where the new result is worse. Exit code 1: a figure got worse by more than the factor, or is not there any more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FACTOR = 1.2
RATE = re.compile(r"per_second$|^times_")
COST = re.compile(r"seconds$|bytes$|_mib$|^ratio")
TIMED = re.compile(r"seconds?$")
UNCERTAIN = ("slowest", "repeats", "p99_seconds", "first_seconds")
"""Names of figures that one disturbance decides, and that say nothing of speed."""


class Figure(NamedTuple):
    """A measured number.

    Attributes:
        value: The number.
        is_rate: Whether more of it is better.
        is_timed: Whether it depends on how fast the machine is.
    """

    value: float
    is_rate: bool
    is_timed: bool


class Change(NamedTuple):
    """A figure of two results; `ratio` is above 1 where the new one is worse, and None where it is gone."""

    name: str
    old: float
    new: float | None
    ratio: float | None


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--factor", type=float, default=FACTOR, help="factor beyond which worse is a failure")
    parser.add_argument("--relative-to", metavar="NAME", help="part of the name of the figure to divide by")
    options = parser.parse_args()
    old, new = read(options.old), read(options.new)
    if old["benchmark"] != new["benchmark"]:
        sys.exit(f"error: {options.old} is of {old['benchmark']} and {options.new} of {new['benchmark']}: give one's")
    if old["machine"] != new["machine"] and not options.relative_to:
        print("note: the machines or their packages differ; --relative-to compares ratios within each run")
    found = [dict(figures(document["result"])) for document in (old, new)]
    if options.relative_to:
        found = [relative(each, options.relative_to) for each in found]
    compared = changes(*found)
    if not compared:
        sys.exit(f"error: {options.old} has no times, rates or sizes: give the result of a benchmark of speed")
    print(table(compared, options.factor))
    sys.exit(any(is_worse(change, options.factor) for change in compared))


def read(path: Path) -> dict[str, Any]:
    """Reads a result; ends the program if it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {"benchmark": document["benchmark"], "machine": document["machine"], "result": document["result"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path} is no result of a benchmark ({error!r}): give a file that one of them has written")


def figures(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Figure]]:
    """Yields the figures of speed and size of a result, by name."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from figures(part, (*path, str(name)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from figures(part, (*path, label(part, number)))
    elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and path[-1] not in UNCERTAIN:
        is_rate = any(map(RATE.search, path))
        if is_rate or any(map(COST.search, path)):
            yield "/".join(path), Figure(float(value), is_rate, any(map(TIMED.search, path)))


def label(row: Any, number: int) -> str:
    """Returns the name of a row of a table: the whole numbers and words that it begins with, else its number."""
    if not isinstance(row, dict):
        return str(number)
    parts = [
        f"{name} {value}"
        for name, value in row.items()
        if isinstance(value, str | int) and not (RATE.search(name) or COST.search(name))
    ]
    return ", ".join(parts[:3]) or str(number)


def relative(found: dict[str, Figure], part: str) -> dict[str, Figure]:
    """Divides times by the one time whose name has a part, and multiplies rates by it; ends the program if none has."""
    units = [figure.value for name, figure in found.items() if part in name and figure.is_timed and not figure.is_rate]
    if not units:
        sys.exit(f"error: no time is called {part!r}: known are {', '.join(found)}")
    unit = units[0]

    def divided(figure: Figure) -> Figure:
        if not figure.is_timed:
            return figure
        return figure._replace(value=figure.value * unit if figure.is_rate else figure.value / unit)

    return {name: divided(figure) for name, figure in found.items()}


def changes(old: dict[str, Figure], new: dict[str, Figure]) -> list[Change]:
    """Returns what became of each figure, the worst first."""
    made = []
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            made.append(Change(name, before.value, None, None))
        else:
            ratio = before.value / after.value if before.is_rate else after.value / before.value
            made.append(Change(name, before.value, after.value, ratio))
    return sorted(made, key=lambda change: -(change.ratio or float("inf")))


def is_worse(change: Change, factor: float) -> bool:
    """Returns whether a figure got worse by more than a factor, or is gone."""
    return change.ratio is None or change.ratio > factor


def table(compared: list[Change], factor: float) -> str:
    """Returns the table as text."""
    width = max(len(change.name) for change in compared)
    lines = [f"{'figure':{width}}  {'old':>12}  {'new':>12}  {'ratio':>7}"]
    for change in compared:
        if change.new is None or change.ratio is None:
            lines.append(f"{change.name:{width}}  {change.old:12.6g}  {'gone':>12}")
            continue
        verdict = "worse" if is_worse(change, factor) else "better" if change.ratio < 1 / factor else ""
        lines.append(
            f"{change.name:{width}}  {change.old:12.6g}  {change.new:12.6g}  {change.ratio:7.3f}  {verdict}".rstrip()
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
