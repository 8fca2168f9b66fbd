"""Groups the timings of a report and writes numbers for its table and its picture."""

from __future__ import annotations

from hbi_infer.bench.run import Report
from hbi_infer.bench.stages import StageTiming


def by_stage(report: Report) -> dict[tuple[str, int], list[tuple[str, StageTiming]]]:
    """Returns (stage, batch) -> (device, timing) pairs, in the order of the report."""
    stages: dict[tuple[str, int], list[tuple[str, StageTiming]]] = {}
    for result in report.devices:
        for made in result.measurements:
            stages.setdefault((made.stage, made.batch), []).append((result.device, made))
    return stages


def milliseconds(seconds: float) -> str:
    """Returns a time in milliseconds with about three digits.

    >>> milliseconds(0.78), milliseconds(0.0123), milliseconds(0.0000123)
    ('780 ms', '12.3 ms', '0.012 ms')
    """
    value = 1000 * seconds
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f} ms"


def per_second(rate: float) -> str:
    """Returns a rate with about three digits.

    >>> per_second(0.2104), per_second(48.27), per_second(14726.0)
    ('0.21', '48.3', '14,726')
    """
    return f"{rate:,.{2 if rate < 10 else 1 if rate < 100 else 0}f}"
