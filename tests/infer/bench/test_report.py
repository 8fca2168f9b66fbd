"""A report as text, and whether its numbers can be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hbi_infer.bench.report import check_targets, is_suspect, to_text, unreliable
from hbi_infer.errors import InputError
from tests.builders.bench_report import small_report


def test_a_wrong_device_is_not_hidden_by_its_speed() -> None:
    report = small_report()
    assert [is_suspect(result) for result in report.devices] == [False, True, False]
    text = to_text(report)
    assert "WRONG: a token of openvino has a cosine of only 0.500" in text
    assert "cuda: there is no GPU" in text


@pytest.mark.parametrize(("devices", "expected"), [((0,), False), ((0, 1), True), ((0, 2), True)])
def test_wrong_results_and_devices_that_cannot_run_make_a_report_unreliable(
    devices: tuple[int, ...], expected: bool
) -> None:
    report = small_report()
    assert unreliable(replace(report, devices=tuple(report.devices[place] for place in devices))) is expected


def test_the_others_are_compared_with_eager_pytorch() -> None:
    cpu, openvino, _ = small_report().devices
    assert "times torch" not in to_text(small_report())
    report = small_report(devices=(cpu, replace(openvino, device="torch")))
    header, *rows = (line.split() for line in to_text(report).splitlines() if "5  " in line or "times" in line)
    assert header[-2:] == ["times", "torch"]
    assert [(row[-1], "torch" in row) for row in rows] == [("0.50", False), ("1.00", True)]


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        check_targets(tmp_path)
    check_targets(None, tmp_path / "new.json")
