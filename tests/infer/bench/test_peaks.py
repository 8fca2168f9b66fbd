"""The processor's own speed: measured on a small product, and which of it a stage is compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hbi_engines.registry import RUNTIMES
from hbi_infer.bench import peaks
from hbi_infer.bench.peaks import Peaks, measure_peaks
from hbi_infer.bench.report import peak_share, to_text
from hbi_infer.bench.run import Report
from tests.builders.bench_report import small_report


def test_a_machine_has_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SIDE", 256)
    monkeypatch.setattr(peaks, "COPIED_BYTES", 2**20)
    measured = measure_peaks(1)
    assert 1e8 < measured.float32 < 1e14
    assert 1e8 < measured.int8 < 1e15
    assert 1e7 < measured.memory < 1e13
    assert (measured.bf16 is None) == bool(RUNTIMES["openvino:bf16"].problem())


def with_peaks(found: Peaks | None, **changes: object) -> Report:
    report = small_report(model={"name": "tiny", "precision": ["float32"]} | changes)
    cpu, openvino, gpu = report.devices
    made = replace(cpu.measurements[0], operations=10**9)
    return replace(report, devices=(replace(cpu, measurements=(made,), peaks=found), openvino, gpu))


def test_a_stage_is_compared_with_the_peak_of_its_precision() -> None:
    found = Peaks(float32=4e9, bf16=8e9, int8=16e9, memory=1e9)
    report = with_peaks(found)
    made = report.devices[0].measurements[0]  # 1e9 operations in half a second
    assert peak_share(report, "cpu", made) == 0.5
    assert peak_share(report, "openvino:bf16", made) == 0.25
    assert peak_share(report, "torch:compile", made) == 0.5
    assert peak_share(with_peaks(found, precision=["float32", "int8"]), "cpu", made) == 0.125
    assert peak_share(report, "cuda", made) is None
    assert peak_share(report, "cpu", replace(made, operations=0)) is None
    assert peak_share(with_peaks(None), "cpu", made) is None
    assert peak_share(with_peaks(replace(found, bf16=None)), "openvino:bf16", made) is None


def test_the_report_tells_the_peak_and_keeps_it() -> None:
    report = with_peaks(Peaks(float32=4e9, bf16=None, int8=16e9, memory=2.5e9))
    text = to_text(report)
    assert "operations a second: 4 in float32, 16 in int8; memory 2.5 GB a second read and written" in text
    assert " 50%" in text
    assert Report.from_document(report.to_document()) == report
    assert "peak, measured" not in to_text(small_report())
