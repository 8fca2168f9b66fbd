"""Measures how fast a model runs on several devices.

Each device is measured in its own process, so that its peak memory is its own and its threads disturb no other. All
of them encode the same clips and texts, and their tokens are compared: speed never hides a wrong result.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.registry import RUNTIMES
from hbi_infer.bench.machine import code_version, describe_machine
from hbi_infer.bench.peaks import Peaks
from hbi_infer.bench.plan import TORCH_DEVICES, Plan
from hbi_infer.bench.stages import StageTiming, draw_videos
from hbi_infer.bench.worker import HOST, BenchJob
from hbi_infer.errors import InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.tokens.levels import unit
from hbi_infer.video.discovery import find_videos
from hbi_infer.worker_process import WorkerDiedError, run_job

USUAL_DEVICES = ("cpu", "cuda", "openvino", "openvino:bf16")
MOST_VIDEOS = 8
SILENCE_SECONDS = 1800.0
"""Longest silence of a process before it is ended: a runtime that does not fit its driver may hang."""
MOST = float(np.finfo(np.float32).max)
"""Replaces NaN and infinity, which JSON cannot represent."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Distance of a device's tokens from those of the first device.

    Attributes:
        largest_difference: Largest absolute difference in tokens and weights; `MOST` for NaN.
        smallest_cosine: Smallest cosine of a token that is no padding; 0 for NaN. Where a device clusters tokens
            differently, its merged tokens are others.
        smallest_cosine_unmerged: Smallest cosine at the first level, where nothing is merged.
    """

    largest_difference: float
    smallest_cosine: float
    smallest_cosine_unmerged: float


@dataclass(frozen=True, kw_only=True)
class DeviceResult:
    """Result of one device.

    Attributes:
        device: One of the plan's, or `HOST`.
        reason: Hardware and runtime that it ran on, and why.
        problem: Reason why it did not run, or stopped early; empty if it ran to its end.
        ready_seconds: Time from opening the bundle to the first tokens of clips and texts.
        peak_memory_bytes: Peak memory of its process; None if it died.
        gpu_memory_bytes: GPU memory that its process held at its end; None without a GPU.
        agreement: Comparison with the first device; None for `HOST`, and where there are no tokens to compare.
        measurements: Timings, in the order they were taken.
        peaks: Largest speeds of the processor, of `HOST` alone.
    """

    device: str
    reason: str = ""
    problem: str = ""
    ready_seconds: float | None = None
    peak_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    agreement: Agreement | None = None
    measurements: tuple[StageTiming, ...] = ()
    peaks: Peaks | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results of a run.

    Attributes:
        model: Name and sizes of the bundle.
        plan: Fields of `Plan`, with defaults filled in.
        machine: See `describe_machine`.
        measured_at: Time of its end, UTC.
        code_version: See `hbi_infer.bench.machine.code_version`.
        devices: `HOST`, then the plan's devices in order.
    """

    model: dict[str, Any]
    plan: dict[str, Any]
    machine: dict[str, Any]
    measured_at: str
    code_version: str | None
    devices: tuple[DeviceResult, ...] = field(default=())

    @property
    def peaks(self) -> Peaks | None:
        """Largest speeds of the processor; None if they were not measured."""
        return next((result.peaks for result in self.devices if result.peaks), None)

    @property
    def failed(self) -> list[DeviceResult]:
        """Devices that did not run to their end."""
        return [result for result in self.devices if result.problem]

    def to_document(self) -> dict[str, Any]:
        """Returns the report as JSON, in the form of all benchmarks."""
        return {
            "benchmark": "bench",
            "measured_at": self.measured_at,
            "code_version": self.code_version,
            "machine": self.machine,
            "result": {
                "model": self.model,
                "plan": self.plan,
                "devices": [
                    asdict(part) | {"measurements": [asdict(made) for made in part.measurements]}
                    for part in self.devices
                ],
            },
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Report:
        """Reads a report that `to_document` wrote."""
        result = document["result"]
        return cls(
            model=result["model"],
            plan=result["plan"],
            machine=document["machine"],
            measured_at=document["measured_at"],
            code_version=document["code_version"],
            devices=tuple(_device_from_document(part) for part in result["devices"]),
        )


def _device_from_document(part: dict[str, Any]) -> DeviceResult:
    agreement = part["agreement"] and Agreement(**part["agreement"])
    measurements = tuple(StageTiming(**made) for made in part["measurements"])
    peaks = part.get("peaks") and Peaks(**part["peaks"])
    return DeviceResult(**part | {"agreement": agreement, "measurements": measurements, "peaks": peaks})


Progress = Callable[[str, StageTiming | None], None]
"""(device, None) when a device begins, (device, timing) after each of its timings."""


def run(
    plan: Plan,
    torch_worker: str,
    progress: Progress = lambda *_: None,
    *,
    silence_seconds: float = SILENCE_SECONDS,
) -> Report:
    """Measures every device of a plan, one after another.

    Args:
        plan: Model, devices and stages.
        torch_worker: Name of the module whose `work` measures `TORCH_DEVICES`: hbi_infer does not import it.
        progress: Receives each device and each timing.
        silence_seconds: Longest time between two replies of a process.

    Raises:
        BundleError: The bundle cannot be used.
        InputError: There are no videos.
    """
    bundle = Bundle.load(plan.bundle or default_bundle_path())
    devices = plan.devices or usual_devices(with_torch=plan.checkpoint is not None)
    results: list[DeviceResult] = []
    reference: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = BenchJob(
            device=HOST,
            bundle=bundle.path,
            checkpoint=plan.checkpoint,
            videos=tuple(_videos(plan, bundle, folder)),
            batches=plan.batches,
            stages=plan.stages,
            seconds=plan.seconds,
            threads=plan.threads,
            encodings=folder / "encodings.npz",
        )
        for device in (HOST, *devices):
            progress(device, None)
            job.encodings.unlink(missing_ok=True)
            result = _measured(replace(job, device=device), torch_worker, progress, silence_seconds)
            if job.encodings.exists():
                encoded = _arrays(job.encodings)
                reference = reference or encoded
                result = replace(result, agreement=agreement(encoded, reference, bundle.manifest.levels[0].name))
            results.append(result)
    return Report(
        model=_described(bundle),
        plan={
            "devices": list(devices),
            "batches": list(plan.batches),
            "stages": list(plan.stages),
            "seconds": plan.seconds,
            "threads": job.num_threads,
            "videos": "drawn" if plan.videos is None else f"{len(job.videos)} files",
        },
        machine=describe_machine(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        devices=tuple(results),
    )


def usual_devices(*, with_torch: bool) -> tuple[str, ...]:
    """Returns the usual devices that can run here, PyTorch for comparison last."""
    found = [name for name in USUAL_DEVICES if not RUNTIMES[name].problem()]
    if with_torch and not _torch_problem("checkpoint"):
        place = "torch-cuda" if "cuda" in found else "torch"
        found += [place, f"{place}:compile"]
    if not found:
        raise InputError("no device can run here: hbi-infer doctor says why")
    return tuple(found)


def agreement(
    encoded: Mapping[str, npt.NDArray[np.float32]], reference: Mapping[str, npt.NDArray[np.float32]], first_level: str
) -> Agreement:
    """Compares the tokens (B, N, D) and weights (B, N), both float32, that two devices computed.

    Args:
        encoded: Arrays by the names of `Workload.checked`, such as "video entity tokens".
        reference: Arrays of the first device, by the same names.
        first_level: Name of the level where nothing is merged.
    """
    cosines: dict[str, float] = {}
    for name, tokens in reference.items():
        side, level, part = name.split(" ")
        if part == "tokens":
            real = (reference[f"{side} {level} weights"] > 0) & (encoded[f"{side} {level} weights"] > 0)
            each = (unit(tokens) * unit(encoded[name])).sum(-1)[real]
            cosines[name] = float(np.nan_to_num(each, nan=0.0).min(initial=1.0)) if each.size else 0.0
    return Agreement(
        largest_difference=max(
            float(np.nan_to_num(np.abs(encoded[name] - reference[name]), nan=MOST, posinf=MOST).max())
            for name in reference
        ),
        smallest_cosine=min(cosines.values()),
        smallest_cosine_unmerged=min(value for name, value in cosines.items() if name.split(" ")[1] == first_level),
    )


def _measured(job: BenchJob, torch_worker: str, progress: Progress, silence_seconds: float) -> DeviceResult:
    """Measures one device in its own process."""
    is_torch = job.device in TORCH_DEVICES
    if is_torch and (problem := _torch_problem(job.checkpoint)):
        return DeviceResult(device=job.device, problem=problem)
    known: dict[str, Any] = {}
    measurements: list[StageTiming] = []

    def take(part: dict[str, Any]) -> None:
        if made := part.pop("measurement", None):
            measurements.append(StageTiming(**made))
            progress(job.device, measurements[-1])
        if peaks := part.pop("peaks", None):
            known["peaks"] = Peaks(**peaks)
        known.update(part)

    module = torch_worker if is_torch else "hbi_infer.bench.worker"
    try:
        run_job(module, job.to_document(), on_part=take, silence_seconds=silence_seconds)
    except WorkerDiedError as died:
        known["problem"] = f"its process died {died}"
    return DeviceResult(device=job.device, measurements=tuple(measurements), **known)


def _torch_problem(checkpoint: object) -> str:
    """Returns why PyTorch cannot be measured and how to mend that; empty if nothing is known to be wrong."""
    if importlib.util.find_spec("torch") is None:
        return 'PyTorch is not installed: pip install "hbi-infer[export]"'
    if checkpoint is None:
        return "a bundle holds no PyTorch model: give --checkpoint runs/NAME/model, or --random vit-b-32"
    return ""


def _videos(plan: Plan, bundle: Bundle, folder: Path) -> Sequence[Path]:
    if plan.videos is None:
        return draw_videos(folder, bundle.manifest.sampling)
    videos = find_videos(plan.videos)[:MOST_VIDEOS]
    if not videos:
        raise InputError(f"there is no video in {plan.videos}: give another folder, or none to draw some")
    return videos


def _arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _described(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "sha256": bundle.sha256,
        "width": manifest.width,
        "max_words": manifest.max_words,
        "sampling": manifest.to_document()["sampling"],
        "tasks": list(manifest.tasks),
        "precision": sorted({graph.precision for graph in manifest.graphs.values()}),
    }
