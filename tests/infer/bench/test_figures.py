"""Numbers of a report, and timings in groups."""

from __future__ import annotations

import pytest

from hbi_infer.bench.figures import by_stage, milliseconds, per_second
from tests.builders.bench_report import small_report


@pytest.mark.parametrize(("rate", "shown"), [(0.2104, "0.21"), (48.27, "48.3"), (14726.0, "14,726")])
def test_per_second(rate: float, shown: str) -> None:
    assert per_second(rate) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.78, "780 ms"), (0.0123, "12.3 ms"), (0.00123, "1.23 ms"), (1.2e-5, "0.012 ms")]
)
def test_milliseconds(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown


def test_timings_stand_by_stage_with_the_devices_in_order() -> None:
    report = small_report()
    cpu, openvino, _ = report.devices
    assert by_stage(report) == {
        ("encode", 2): [("cpu", cpu.measurements[0]), ("openvino", openvino.measurements[0])],
    }
