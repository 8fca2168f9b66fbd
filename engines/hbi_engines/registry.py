"""Opens a graph on a device; the runtimes register here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hbi_engines import onnx_runtime
from hbi_engines.engine import Engine
from hbi_engines.errors import DeviceError


@dataclass(frozen=True)
class Runtime:
    """How graphs run on one device.

    Attributes:
        open: (graph, threads, why this device) -> engine.
        problem: () -> what keeps the device from running here and how to mend it; empty if nothing is known to.
    """

    open: Callable[[Path | bytes, int, str], Engine]
    problem: Callable[[], str]


RUNTIMES: dict[str, Runtime] = {
    "cpu": Runtime(onnx_runtime.open_cpu, problem=lambda: ""),
    "cuda": Runtime(onnx_runtime.open_cuda, onnx_runtime.cuda_problem),
}
"""Device -> its runtime."""


def open_engine(graph: Path | bytes, device: str = "auto", threads: int | None = None) -> Engine:
    """Load an ONNX graph.

    Args:
        graph: The graph's file, or its bytes where the caller has checked them.
        device: "cpu", "cuda", or "auto": the GPU if it can run the graph, else the processor. `Engine.device_reason`
            says what was chosen and why.
        threads: Processor threads, by default one for each physical core that this process may use.

    Raises:
        DeviceError: The device is unknown or cannot run here; never a silent fall back to another one.
        EngineError: The runtime is not installed or refused the graph.
    """
    if threads is None:
        threads = physical_cores()
    elif threads < 1:
        raise DeviceError(f"threads is {threads}; give 1 or more, or leave it out for one for each physical core")
    if device != "auto":
        check_device(device)
        return RUNTIMES[device].open(graph, threads, "as asked")
    try:
        check_device("cuda")
        return RUNTIMES["cuda"].open(graph, threads, "chosen because it can run here")
    except DeviceError as error:
        return RUNTIMES["cpu"].open(graph, threads, f"chosen because {error}")


def check_device(device: str) -> None:
    """Refuse a device that cannot run here, before any file is touched.

    Raises:
        DeviceError: The device is unknown or cannot run here.
    """
    if device == "auto":
        return
    if device not in RUNTIMES:
        raise DeviceError(f"there is no device {device!r}; choose one of: auto, {', '.join(RUNTIMES)}")
    if problem := RUNTIMES[device].problem():
        raise DeviceError(f"device {device} cannot run here: {problem}")


def physical_cores() -> int:
    """Physical cores that this process may run on; two hyper-threads of one core count once."""
    cores = set()
    for number in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="ascii") if siblings.exists() else str(number))
    return len(cores)
