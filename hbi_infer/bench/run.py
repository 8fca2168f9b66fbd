"""How fast a model runs on several devices, side by side.

Each device is measured in a process of its own, so that its peak memory is its own and its threads disturb no other.
All of them encode the same clips and texts, and what they give is compared: speed never hides a wrong result.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.registry import RUNTIMES
from hbi_infer.bench.machine import code_version, describe_machine
from hbi_infer.bench.stages import STAGES, Measurement, draw_videos
from hbi_infer.bench.worker import HOST, Task
from hbi_infer.errors import InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.tokens.levels import unit
from hbi_infer.video.discovery import find_videos

TORCH_DEVICES = tuple(
    f"{place}{compiled}{precision}"
    for place, precisions in (("torch", ("", ":bf16")), ("torch-cuda", ("", ":bf16", ":fp16")))
    for compiled in ("", ":compile")
    for precision in precisions
)
"""PyTorch, to compare with: eager or compiled, on the processor or the first GPU, in float32 or autocast."""
USUAL_DEVICES = ("cpu", "cuda", "openvino", "openvino:bf16")
USUAL_BATCHES = (1, 8)
USUAL_SECONDS = 2.0
MOST_VIDEOS = 8
SILENCE_SECONDS = 1800.0
"""A process that says nothing for so long is ended: a runtime that does not fit its driver may hang."""
LINES_SHOWN = 3
"""Of what a process said before it died."""
MOST = float(np.finfo(np.float32).max)
"""For a difference to what is not a number, which JSON cannot hold."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        bundle: The model; None for the embedded one.
        checkpoint: The same model as hbi-train wrote it, for PyTorch.
        devices: Of `RUNTIMES` and `TORCH_DEVICES`; the first is what the others are compared with. None: all usual
            ones that can run here.
        batches: Items of a call.
        stages: Of `STAGES`.
        seconds: Of each measurement.
        threads: Of the processor; None for one for each physical core.
        videos: A folder of videos; None to draw some.
    """

    bundle: Path | None = None
    checkpoint: Path | None = None
    devices: tuple[str, ...] | None = None
    batches: tuple[int, ...] = USUAL_BATCHES
    stages: tuple[str, ...] = tuple(STAGES)
    seconds: float = USUAL_SECONDS
    threads: int | None = None
    videos: Path | None = None

    def __post_init__(self) -> None:
        known = (*RUNTIMES, *TORCH_DEVICES)
        if unknown := [name for name in self.devices or () if name not in known]:
            raise InputError(f"there is no device {unknown[0]!r}; choose from: {', '.join(known)}")
        if unknown := [name for name in self.stages if name not in STAGES]:
            raise InputError(f"there is no stage {unknown[0]!r}; choose from: {', '.join(STAGES)}")
        if not self.batches or min(self.batches) < 1:
            raise InputError(f"the batches are {self.batches}; give sizes of 1 or more")
        if not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds}; it must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the tokens of a device are from those of the first one.

    Attributes:
        largest_difference: Of any number in tokens and weights; `MOST` where one is none.
        smallest_cosine: Of any token, padding left out; 0 where a number is none. Where a device clusters tokens
            otherwise, a merged token is another one.
        smallest_cosine_unmerged: The same, of the first level alone, where nothing is merged.
    """

    largest_difference: float
    smallest_cosine: float
    smallest_cosine_unmerged: float


@dataclass(frozen=True, kw_only=True)
class DeviceResult:
    """What became of one device.

    Attributes:
        device: One of the plan's, or `HOST`.
        reason: On what it ran and why.
        problem: What kept it from running, or from going on; empty if nothing did.
        ready_seconds: From opening the bundle to the first tokens of clips and texts.
        peak_memory_bytes: The most that its process held; None if it died.
        gpu_memory_bytes: What its process had taken of the GPU's memory at its end; None without a GPU.
        agreement: None of `HOST`, and where there is nothing to compare.
        measurements: In the order they were made.
    """

    device: str
    reason: str = ""
    problem: str = ""
    ready_seconds: float | None = None
    peak_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    agreement: Agreement | None = None
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `run` measured.

    Attributes:
        model: Name and sizes of the bundle.
        plan: What was done, as in `Plan`.
        machine: See `describe_machine`.
        measured_at: When it ended, UTC.
        code_version: See `hbi_infer.bench.machine.code_version`.
        devices: In the plan's order, `HOST` before them.
    """

    model: dict[str, Any]
    plan: dict[str, Any]
    machine: dict[str, Any]
    measured_at: str
    code_version: str | None
    devices: tuple[DeviceResult, ...] = field(default=())

    @property
    def failed(self) -> list[DeviceResult]:
        """Those that did not run, or not to the end."""
        return [result for result in self.devices if result.problem]

    def to_document(self) -> dict[str, Any]:
        """For JSON, in the form of all benchmarks."""
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
        """What `to_document` wrote."""
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
    measurements = tuple(Measurement(**made) for made in part["measurements"])
    return DeviceResult(**part | {"agreement": agreement, "measurements": measurements})


Progress = Callable[[str, Measurement | None], None]
"""Called with a device when it begins, and with each of its measurements."""


def run(
    plan: Plan,
    torch_worker: str,
    progress: Progress = lambda *_: None,
    *,
    silence_seconds: float = SILENCE_SECONDS,
) -> Report:
    """Measure every device of a plan, one after another.

    Args:
        plan: What to measure.
        torch_worker: The module that measures `TORCH_DEVICES` when it is run; hbi_infer knows nothing of PyTorch.
        progress: Is told what is going on.
        silence_seconds: How long a process may say nothing, not even that a measurement is over.

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
        task = Task(
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
            task.encodings.unlink(missing_ok=True)
            result = _measured(replace(task, device=device), torch_worker, progress, silence_seconds)
            if task.encodings.exists():
                encoded = _arrays(task.encodings)
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
            "threads": task.num_threads,
            "videos": "drawn" if plan.videos is None else f"{len(task.videos)} files",
        },
        machine=describe_machine(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        devices=tuple(results),
    )


def usual_devices(*, with_torch: bool) -> tuple[str, ...]:
    """What can run here, PyTorch for comparison last."""
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
    """Compare what two devices gave, by the names of `Workload.checked`: "video entity tokens" and so on."""
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


def _measured(task: Task, torch_worker: str, progress: Progress, silence_seconds: float) -> DeviceResult:
    """Measure one device in a process of its own."""
    is_torch = task.device in TORCH_DEVICES
    if is_torch and (problem := _torch_problem(task.checkpoint)):
        return DeviceResult(device=task.device, problem=problem)
    command = [sys.executable, "-P", "-m", torch_worker if is_torch else "hbi_infer.bench.worker", task.to_json()]
    known: dict[str, Any] = {}
    measurements: list[Measurement] = []
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process:
            for line in _lines(process, silence_seconds):
                part = json.loads(line)
                if made := part.pop("measurement", None):
                    measurements.append(Measurement(**made))
                    progress(task.device, measurements[-1])
                known |= part
        said.seek(0)
        lines = said.read().strip().splitlines()[-LINES_SHOWN:]
    if code := process.returncode:
        how = f"of {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if code == -signal.SIGKILL:
            how += f" (it had said nothing for {silence_seconds:g} s, or memory ran out)"
        known["problem"] = f"its process died {how}: {' / '.join(lines) or 'it said nothing'}"
    return DeviceResult(device=task.device, measurements=tuple(measurements), **known)


def _lines(process: subprocess.Popen[str], silence_seconds: float) -> Iterator[str]:
    """What a process says; it is ended where it says nothing for so long."""
    assert process.stdout is not None
    while True:
        timer = Timer(silence_seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            return
        yield line


def _torch_problem(checkpoint: object) -> str:
    """What keeps PyTorch from being compared with and how to mend it; empty if nothing is known to."""
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
        "sampling": asdict(manifest.sampling),
        "tasks": list(manifest.tasks),
        "precision": sorted({graph.precision for graph in manifest.graphs.values()}),
    }
