"""Opens a graph on a device; every runtime is registered here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hbi_engines import onnx_runtime, openvino_runtime
from hbi_engines.engine import Engine
from hbi_engines.engine_files import FLAVORS, BuiltEngines, Flavor
from hbi_engines.engine_options import EngineOptions
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.graph_content import check_graph
from hbi_engines.operating_system import physical_cores
from hbi_engines.tensorrt import runtime as tensorrt_runtime
from hbi_engines.time_limit import LIMIT_SECONDS

if TYPE_CHECKING:
    from hbi_engines.half_products import Precision


@dataclass(frozen=True)
class Runtime:
    """Runtime of one device.

    Attributes:
        open: Opens a graph.
        problem: Returns why the device cannot run here and how to mend it; empty if no reason is known.
    """

    open: Callable[[bytes, EngineOptions], Engine]
    problem: Callable[[], str]


def _tensorrt(flavor: Flavor, precision: Precision) -> Runtime:
    return Runtime(partial(tensorrt_runtime.open_built, flavor, precision), partial(tensorrt_runtime.problem, flavor))


def _openvino(precision: Precision) -> Runtime:
    return Runtime(partial(openvino_runtime.open_compiled, precision), partial(openvino_runtime.problem, precision))


RUNTIMES: dict[str, Runtime] = {
    "cpu": Runtime(onnx_runtime.open_cpu, onnx_runtime.cpu_problem),
    "cuda": Runtime(onnx_runtime.open_cuda, onnx_runtime.cuda_problem),
    "openvino": _openvino("fp32"),
    "openvino:bf16": _openvino("bf16"),
    "tensorrt": _tensorrt(FLAVORS["tensorrt"], "fp32"),
    "tensorrt:fp16": _tensorrt(FLAVORS["tensorrt"], "fp16"),
    "tensorrt:bf16": _tensorrt(FLAVORS["tensorrt"], "bf16"),
    "tensorrt-rtx": _tensorrt(FLAVORS["tensorrt-rtx"], "fp32"),
    "tensorrt-rtx:fp16": _tensorrt(FLAVORS["tensorrt-rtx"], "fp16"),
    "tensorrt-rtx:bf16": _tensorrt(FLAVORS["tensorrt-rtx"], "bf16"),
}
"""Device -> its runtime; a device without a precision behind a colon computes in float32."""
PROCESSOR_DEVICES = ("cpu", "openvino", "openvino:bf16")
"""Devices that need no GPU."""
BEST_FIRST = ("tensorrt", "tensorrt-rtx", "cuda", "cpu", "openvino")
"""Devices that "auto" tries, all in float32; the TensorRTs only where engines were built for them."""


def open_engine(
    graph: Path | bytes,
    device: str = "auto",
    threads: int | None = None,
    built: BuiltEngines | None = None,
    *,
    limit_seconds: float = LIMIT_SECONDS,
) -> Engine:
    """Loads an ONNX graph.

    Args:
        graph: The graph's file, or its bytes where the caller has checked them.
        device: One of `RUNTIMES`, or "auto": a GPU if one can run the graph, else the processor.
            `Engine.device_reason` says what was chosen and why.
        threads: Processor threads, by default one for each physical core that this process may use.
        built: Location of engines that TensorRT built of the graph.
        limit_seconds: Limit for loading the graph, and for running it once.

    Raises:
        DeviceError: The device is unknown or cannot run here; never a silent fall back to another one.
        EngineError: The graph cannot be read or names other files, or the runtime refused it or took too long.
    """
    if threads is None:
        threads = physical_cores()
    elif threads < 1:
        raise DeviceError(f"threads is {threads}; give 1 or more, or leave it out for one for each physical core")
    if not limit_seconds > 0:
        raise EngineError(f"limit_seconds is {limit_seconds}; it must be greater than 0")
    if device != "auto":
        check_device(device)
        return _open(graph, device, EngineOptions(threads, "as asked", built, limit_seconds))
    reasons: list[str] = []
    for candidate in BEST_FIRST:
        if candidate in FLAVORS and not (built and built.records(FLAVORS[candidate])):
            continue
        why = f"chosen because {'; '.join(reasons) or 'it can run here'}"
        try:
            check_device(candidate)
            return _open(graph, candidate, EngineOptions(threads, why, built, limit_seconds))
        except DeviceError as error:
            reasons.append(str(error))
    raise DeviceError(f"no device can run here: {'; '.join(reasons)}")


def _open(graph: Path | bytes, device: str, options: EngineOptions) -> Engine:
    """Opens a graph as bytes that have been checked: from a file, a runtime would read the files that it names."""
    content = graph if isinstance(graph, bytes) else _read(graph)
    return RUNTIMES[device].open(check_graph(content), options)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"the graph {path} cannot be read: {error.strerror}") from error


def check_device(device: str) -> None:
    """Refuses a device that cannot run here, before any file is touched.

    Raises:
        DeviceError: The device is unknown or cannot run here.
    """
    if device == "auto":
        return
    if device not in RUNTIMES:
        raise DeviceError(f"there is no device {device!r}; choose one of: auto, {', '.join(RUNTIMES)}")
    if problem := RUNTIMES[device].problem():
        raise DeviceError(f"device {device} cannot run here: {problem}")
