"""Writes the report of `hbi-infer bench` as text and JSON, and judges whether its numbers can be trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hbi_engines.registry import PROCESSOR_DEVICES
from hbi_infer.bench.figures import by_stage, milliseconds, per_second
from hbi_infer.bench.peaks import Peaks
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
    if peaks := report.peaks:
        blocks.append([_told(peaks)])
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


def peak_share(report: Report, device: str, made: StageTiming) -> float | None:
    """Returns what part of the processor's peak a stage reaches, 0 to 1 and for a rounding more.

    None where the operations were not counted, the device is not the processor, or its peak is not known.
    """
    peaks = report.peaks
    place, *options = device.split(":")
    if peaks is None or not made.operations or place not in (*PROCESSOR_DEVICES, "torch"):
        return None
    precisions = {*options, *report.model["precision"]}
    peak = peaks.bf16 if "bf16" in precisions else peaks.int8 if "int8" in precisions else peaks.float32
    return made.operations / made.p50_seconds / peak if peak else None


def _told(peaks: Peaks) -> str:
    speeds = {"float32": peaks.float32, "bf16": peaks.bf16, "int8": peaks.int8}
    products = ", ".join(f"{speed / 1e9:,.0f} in {name}" for name, speed in speeds.items() if speed)
    return (
        f"the processor's peak, measured on a large product: billions of operations a second: {products}; memory "
        f"{peaks.memory / 1e9:,.1f} GB a second read and written"
    )


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"


STAGE_HEADER = ("stage", "device", "batch", "p50", "p90", "p99", "a second", "", "runs", "of peak")


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
            share = peak_share(report, device, made)
            of_peak = "-" if share is None else f"{share:.0%}"
            figures = (per_second(made.items_per_second), made.items, str(made.runs), of_peak)
            rows.append((*name, *times, *figures, *speed))
    header = (*STAGE_HEADER, f"times {baseline}") if baseline else STAGE_HEADER
    return aligned(header, rows, text_columns=2)
