"""What `hbi-infer bench` measured, as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hbi_infer.bench.run import DeviceResult, Report
from hbi_infer.bench.stages import Measurement
from hbi_infer.errors import InputError
from hbi_infer.files import is_folder

TRUSTED_COSINE = 0.99
"""Where a token that was not merged is less alike, the device computes something else, or the precision is too low."""

Row = Sequence[str]


def to_text(report: Report) -> str:
    """The devices, then every stage with the devices below each other."""
    blocks = [_aligned(DEVICE_HEADER, [_device_row(result) for result in report.devices])]
    baseline = next((result.device for result in report.devices if result.agreement), "")
    if baseline:
        blocks.append([f"cosines and differences are those of tokens to the tokens of {baseline}"])
    blocks.append(_stages(report))
    blocks.append([f"{result.device}: {result.problem}" for result in report.failed])
    blocks.append([*map(warning, filter(is_suspect, report.devices))])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def check_targets(*targets: Path | None) -> None:
    """Refuse files that cannot be written, before minutes of measuring.

    Raises:
        InputError: The folder is not there.
    """
    for target in filter(None, targets):
        if is_folder(target) or not is_folder(target.absolute().parent):
            raise InputError(f"{target} cannot be written: name a file in a folder that is there")


def write(report: Report, json_file: Path | None, plot: Path | None) -> None:
    """Write a report as JSON and as a picture, each where a file is named."""
    if json_file:
        json_file.write_text(json.dumps(report.to_document(), indent=2) + "\n", encoding="utf-8")
    if plot:
        from hbi_infer.bench.picture import picture

        plot.write_bytes(picture(report))


def is_suspect(result: DeviceResult) -> bool:
    """Whether what a device gives is so far from what the first one gives that its speed says nothing."""
    return result.agreement is not None and not result.agreement.smallest_cosine_unmerged >= TRUSTED_COSINE


def unreliable(report: Report) -> bool:
    """Whether a device did not run to its end, or gives something else than the first one."""
    return bool(report.failed) or any(map(is_suspect, report.devices))


def warning(result: DeviceResult) -> str:
    """What to say of a device that `is_suspect`."""
    assert result.agreement is not None
    return (
        f"WRONG: a token of {result.device} has a cosine of only {result.agreement.smallest_cosine_unmerged:.3f} to "
        "the same one of the first device"
    )


DEVICE_HEADER = ("device", "first tokens", "peak memory", "GPU memory", "least cosine", "merged too", "most off", "")


def _device_row(result: DeviceResult) -> Row:
    agreement = result.agreement
    compared: Row = ("-", "-", "-")
    if agreement:
        cosines = agreement.smallest_cosine_unmerged, agreement.smallest_cosine
        compared = (*(f"{cosine:.5f}" for cosine in cosines), f"{agreement.largest_difference:.1e}")
    ready = "-" if result.ready_seconds is None else f"{result.ready_seconds:.2f} s"
    memory = (_mebibytes(result.peak_memory_bytes), _mebibytes(result.gpu_memory_bytes))
    problem = result.problem and ("STOPPED, see below" if result.measurements else "CANNOT RUN, see below")
    return result.device, ready, *memory, *compared, problem or result.reason


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"


STAGE_HEADER = ("stage", "device", "batch", "p50", "p90", "p99", "a second", "", "runs")


EAGER = ("torch", "torch-cuda")
"""Eager PyTorch in float32: where it was measured, the table says how many times as fast the others are."""


def _stages(report: Report) -> list[str]:
    """Of each stage and size of a batch the devices below each other."""
    baseline = next((result.device for result in report.devices if result.device in EAGER and result.measurements), "")
    rows = []
    for (stage, batch), measured in by_stage(report).items():
        eager = dict(measured).get(baseline)
        for place, (device, made) in enumerate(measured):
            times = (milliseconds(seconds) for seconds in (made.p50_seconds, made.p90_seconds, made.p99_seconds))
            name = (stage, device, str(batch)) if place == 0 else ("", device, "")
            speed = [f"{eager.p50_seconds / made.p50_seconds:.2f}" if eager else "-"] if baseline else []
            rows.append((*name, *times, per_second(made.items_per_second), made.items, str(made.runs), *speed))
    header = (*STAGE_HEADER, f"times {baseline}") if baseline else STAGE_HEADER
    return _aligned(header, rows, numbers_from=2)


def by_stage(report: Report) -> dict[tuple[str, int], list[tuple[str, Measurement]]]:
    """(stage, batch) -> devices with what was measured, in the order of the report."""
    stages: dict[tuple[str, int], list[tuple[str, Measurement]]] = {}
    for result in report.devices:
        for made in result.measurements:
            stages.setdefault((made.stage, made.batch), []).append((result.device, made))
    return stages


def milliseconds(seconds: float) -> str:
    """With three digits or so.

    >>> milliseconds(0.78), milliseconds(0.0123), milliseconds(0.0000123)
    ('780 ms', '12.3 ms', '0.012 ms')
    """
    value = 1000 * seconds
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f} ms"


def per_second(rate: float) -> str:
    """With three digits or so.

    >>> per_second(0.2104), per_second(48.27), per_second(14726.0)
    ('0.21', '48.3', '14,726')
    """
    return f"{rate:,.{2 if rate < 10 else 1 if rate < 100 else 0}f}"


def _aligned(header: Row, rows: Sequence[Row], numbers_from: int = 1) -> list[str]:
    """Lines of a table whose columns stand below each other, numbers to the right; the last column is as it is."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            f"{cell:<{width}}" if column < numbers_from or not header[column] else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
