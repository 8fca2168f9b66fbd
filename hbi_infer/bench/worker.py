"""The process in which `hbi-infer bench` measures one device: `python -m hbi_infer.bench.worker TASK` is it.

The task goes in as JSON on the command line. What comes of it goes out on stdout, a line of JSON for each part as soon
as it is there, so that a runtime that ends its process without a word costs only what was not measured yet.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbi_engines.registry import physical_cores
from hbi_infer.bench.machine import gpu_memory_bytes, peak_memory_bytes
from hbi_infer.bench.stages import DEVICE_STAGES, Workload, measure
from hbi_infer.errors import HBIError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel

HOST = "host"
"""In place of a device: the stages that none has a part in."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process measures.

    Attributes:
        device: A device, or `HOST`.
        bundle: The model.
        checkpoint: The model as PyTorch has it, where there is one.
        videos: Files to decode and encode.
        batches: Items of a call.
        stages: Of `hbi_infer.bench.stages.STAGES`.
        seconds: Of each measurement.
        threads: Of the processor; None for one for each physical core.
        encodings: Where the tokens to be compared go.
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
        """As asked for, or one for each physical core."""
        return self.threads or physical_cores()

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What `to_json` wrote."""
        fields = json.loads(text)
        fields["bundle"], fields["encodings"] = Path(fields["bundle"]), Path(fields["encodings"])
        fields["checkpoint"] = fields["checkpoint"] and Path(fields["checkpoint"])
        fields["videos"] = tuple(map(Path, fields["videos"]))
        return cls(**fields | {name: tuple(fields[name]) for name in ("batches", "stages")})


OpenModel = Callable[[Task], TokenModel]


def open_bundle(task: Task) -> TokenModel:
    """The bundle's own graphs on the task's device."""
    device = "auto" if task.device == HOST else task.device
    return TokenModel(Bundle.load(task.bundle), device=device, threads=task.num_threads)


def serve(open_model: OpenModel) -> None:
    """Measure what the command line asks for, and reply on stdout."""
    with os.fdopen(os.dup(1), "w") as reply:
        os.dup2(2, 1)  # runtimes print
        for part in _parts(Task.from_json(sys.argv[1]), open_model):
            reply.write(json.dumps(part) + "\n")
            reply.flush()


def _parts(task: Task, open_model: OpenModel) -> Iterator[dict[str, Any]]:
    """What is known of the device, each measurement, and at last the memory that it took; or why it cannot run."""
    gpu_before = gpu_memory_bytes()
    try:
        started = time.perf_counter()
        hbi = open_model(task)
        opening_seconds = time.perf_counter() - started
        work = Workload(hbi, task.videos)
        if task.device == HOST:
            calls = work.host_calls(task.batches)
            yield {"reason": "decoding and cutting texts, on the processor"}
        else:
            started = time.perf_counter()
            np.savez(task.encodings, allow_pickle=False, **work.checked())
            ready_seconds = opening_seconds + time.perf_counter() - started
            yield {"reason": hbi.device_reason, "ready_seconds": ready_seconds}
            calls = work.device_calls(task.batches, [stage for stage in task.stages if stage in DEVICE_STAGES])
        for call in calls:
            if call.stage in task.stages:
                yield {"measurement": asdict(measure(call, task.seconds))}
    except HBIError as error:
        yield {"problem": str(error)}
    gpu_after = gpu_memory_bytes()
    taken = None if gpu_before is None or gpu_after is None else max(gpu_after - gpu_before, 0)
    yield {"peak_memory_bytes": peak_memory_bytes(), "gpu_memory_bytes": taken}


if __name__ == "__main__":
    serve(open_bundle)
