"""Measures one device in its own process (see `hbi_infer.worker_process`).

Each timing is sent at once, so that a runtime that ends its process without a word costs only the results that are
still missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbi_engines.operating_system import peak_memory_bytes, physical_cores
from hbi_infer.bench.machine import gpu_memory_bytes
from hbi_infer.bench.peaks import measure_peaks
from hbi_infer.bench.plan import DEVICE_STAGES
from hbi_infer.bench.stages import Workload, measure
from hbi_infer.errors import HBIError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from hbi_infer.worker_process import Answer, Tell

HOST = "host"
"""Name, in place of a device's, for the stages that always run on the processor."""


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """Work of one process.

    Attributes:
        device: A device, or `HOST`.
        bundle: Path of the model.
        checkpoint: Path of the same model for PyTorch, if there is one.
        videos: Files to decode and encode.
        batches: Numbers of items in a call.
        stages: Names in `hbi_infer.bench.plan.STAGES`.
        seconds: Duration of each measurement.
        threads: Processor threads; None for one for each physical core.
        encodings: File for the tokens to compare.
    """

    device: str
    bundle: Path
    checkpoint: Path | None
    videos: tuple[Path, ...]
    batches: tuple[int, ...]
    stages: tuple[str, ...]
    seconds: float
    threads: int | None
    encodings: Path

    @property
    def num_threads(self) -> int:
        """Number of threads asked for, or of physical cores."""
        return self.threads or physical_cores()

    def to_document(self) -> dict[str, Any]:
        """Returns a JSON object that `from_document` reads."""
        return {
            **asdict(self),
            "bundle": str(self.bundle),
            "checkpoint": self.checkpoint and str(self.checkpoint),
            "videos": [str(video) for video in self.videos],
            "encodings": str(self.encodings),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> BenchJob:
        """Reads a job that `to_document` wrote."""
        paths = {name: Path(document[name]) for name in ("bundle", "encodings")}
        checkpoint = document["checkpoint"] and Path(document["checkpoint"])
        videos = tuple(map(Path, document["videos"]))
        sequences = {name: tuple(document[name]) for name in ("batches", "stages")}
        return cls(**document | paths | sequences | {"checkpoint": checkpoint, "videos": videos})


OpenModel = Callable[[BenchJob], TokenModel]


def open_bundle(job: BenchJob) -> TokenModel:
    """Opens the bundle's own graphs on the job's device."""
    device = "auto" if job.device == HOST else job.device
    return TokenModel(Bundle.load(job.bundle), device=device, threads=job.num_threads)


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Measures the bundle's graphs, as a job of `hbi_infer.worker_process`."""
    return measure_device(BenchJob.from_document(job), open_bundle, tell)


def measure_device(job: BenchJob, open_model: OpenModel, tell: Tell) -> Answer:
    """Measures a device.

    Args:
        job: The device and how it is measured.
        open_model: Opens the model on the device.
        tell: Takes each part of the result at once.
    """
    for part in _parts(job, open_model):
        tell(part)
    return Answer({})


def _parts(job: BenchJob, open_model: OpenModel) -> Iterator[dict[str, Any]]:
    """Yields facts about the device, each timing, and at last the memory that it took; or why it cannot run."""
    gpu_before = gpu_memory_bytes()
    try:
        started = time.perf_counter()
        hbi = open_model(job)
        opening_seconds = time.perf_counter() - started
        work = Workload(hbi, job.videos)
        if job.device == HOST:
            calls = work.host_calls(job.batches)
            yield {"reason": "decoding and cutting texts, on the processor"}
            yield {"peaks": asdict(measure_peaks(job.num_threads))}
        else:
            started = time.perf_counter()
            np.savez(job.encodings, allow_pickle=False, **work.checked())
            ready_seconds = opening_seconds + time.perf_counter() - started
            yield {"reason": hbi.device_reason, "ready_seconds": ready_seconds}
            calls = work.device_calls(job.batches, [stage for stage in job.stages if stage in DEVICE_STAGES])
        for call in calls:
            if call.stage in job.stages:
                yield {"measurement": asdict(measure(call, job.seconds))}
    except HBIError as error:
        yield {"problem": str(error)}
    gpu_after = gpu_memory_bytes()
    taken = None if gpu_before is None or gpu_after is None else max(gpu_after - gpu_before, 0)
    yield {"peak_memory_bytes": peak_memory_bytes(), "gpu_memory_bytes": taken}
