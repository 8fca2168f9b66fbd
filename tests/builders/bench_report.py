"""Builds a report of three devices: one as it should be, one with wrong tokens, and one that cannot run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hbi_infer.bench.run import Agreement, DeviceResult, Report
from hbi_infer.bench.stages import StageTiming


def small_report(**changes: Any) -> Report:
    made = StageTiming(
        stage="encode",
        batch=2,
        items="clips",
        runs=5,
        warm_up_runs=1,
        first_seconds=1.0,
        p50_seconds=0.5,
        p90_seconds=0.75,
        p99_seconds=0.875,
        items_per_second=4.0,
    )
    same = Agreement(largest_difference=0.0, smallest_cosine=1.0, smallest_cosine_unmerged=1.0)
    other = Agreement(largest_difference=0.5, smallest_cosine=0.25, smallest_cosine_unmerged=0.5)
    devices = (
        DeviceResult(device="cpu", reason="as asked", measurements=(made,), agreement=same, peak_memory_bytes=2**20),
        DeviceResult(device="openvino", measurements=(replace(made, p50_seconds=0.25),), agreement=other),
        DeviceResult(device="cuda", problem="there is no GPU"),
    )
    fields = {
        "model": {"name": "tiny", "width": 3, "sampling": {"max_frames": 4, "image_size": 16}},
        "plan": {"threads": 1},
        "machine": {"processor": "a processor", "gpu": None, "load_average_1_minute": 0.5},
        "measured_at": "2026-01-01T00:00:00+00:00",
        "code_version": None,
        "devices": devices,
    }
    return Report(**fields | changes)
