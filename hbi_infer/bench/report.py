"""Writes the report of `hbi-infer bench` as text and JSON, and judges whether its numbers can be trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hbi_infer.bench.figures import by_stage, milliseconds, per_second
from hbi_infer.bench.run import DeviceResult, Report
from hbi_infer.bench.stages import StageTiming
from hbi_infer.errors import InputError
from hbi_infer.files import is_folder, write_whole
from hbi_infer.render.stdout import note
from hbi_infer.render.text_table import Row, aligned

TRUSTED_COSINE = 0.99
"""Smallest cosine of a token that was not merged; below it, the device computes something else or too coarsely."""


def to_text(report: Report) -> str:
    """Returns a table of the devices, a table of the stages, and a line for each problem."""
    blocks = [aligned(DEVICE_HEADER, [_device_row(result) for result in report.devices], text_columns=1)]
    baseline = next((result.device for result in report.devices if result.agreement), "")
    if baseline:
        blocks.append([f"cosines and differences are those of tokens to the tokens of {baseline}"])
    blocks.append(_stages(report))
    blocks.append([f"{result.device}: {result.problem}" for result in report.failed])
    blocks.append([*map(warning, filter(is_suspect, report.devices))])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def check_targets(*targets: Path | None) -> None:
    """Refuses files that cannot be written, before minutes of measuring.

    Raises:
        InputError: The folder of a file does not exist, or the file is a folder.
    """
    for target in filter(None, targets):
        if is_folder(target) or not is_folder(target.absolute().parent):
            raise InputError(f"{target} cannot be written: name a file in a folder that is there")


def write_json(report: Report, path: Path) -> None:
    """Writes a report as a JSON document."""
    write_whole(path, (json.dumps(report.to_document(), indent=2) + "\n").encode(), overwrite=True)


def show_progress(device: str, timing: StageTiming | None) -> None:
    """Says on a terminal's stderr which device is being measured, or which timing was just taken."""
    if sys.stderr.isatty():
        done = "..." if timing is None else f"{timing.stage}, batch {timing.batch}: {1000 * timing.p50_seconds:.4g} ms"
        note("note", f"{device}: {done}")


def is_suspect(result: DeviceResult) -> bool:
    """Returns whether a device's tokens differ so much from the first device's that its speed says nothing."""
    return result.agreement is not None and not result.agreement.smallest_cosine_unmerged >= TRUSTED_COSINE


def unreliable(report: Report) -> bool:
    """Returns whether a device did not run to its end, or `is_suspect`."""
    return bool(report.failed) or any(map(is_suspect, report.devices))


def warning(result: DeviceResult) -> str:
    """Returns a line about a device that `is_suspect`."""
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
"""Eager PyTorch in float32; where it was measured, the table compares the other devices with it."""


def _stages(report: Report) -> list[str]:
    """Returns a table with the devices below each other, for each stage and batch size."""
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
    return aligned(header, rows, text_columns=2)
