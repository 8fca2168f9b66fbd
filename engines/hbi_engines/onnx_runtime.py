"""Runs graphs in ONNX Runtime, on the processor and on NVIDIA GPUs.

ONNX Runtime's CUDA build lists CUDA as available on a machine without a GPU, and a session that asks for CUDA there
runs on the processor with a note on stderr. Here a request for CUDA is checked before and after the session is made,
and the error names what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import subprocess
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hbi_engines.cuda.driver import driver_problem
from hbi_engines.engine import Engine, InputCheck, Inputs, TensorSpec
from hbi_engines.engine_options import EngineOptions
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.time_limit import StoppedInTime, wait_for

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CHOOSE = 'pip install "hbi-infer[cpu]", or for an NVIDIA GPU pip install "hbi-infer[gpu]" (one of them, never both)'
WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
LOOPS = (b"Loop", b"Scan", b"SequenceMap")
"""Operators that may repeat for ever."""
NUMPY_NAMES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class OnnxRuntimeEngine:
    """A graph in an ONNX Runtime session; see `hbi_engines.engine.Engine`."""

    def __init__(self, session: Any, device: str, device_reason: str, limit_seconds: float) -> None:
        self._session, self._run_options = session, _import().RunOptions
        self._limit_seconds = limit_seconds
        with _mapped("refused the graph"):  # its names may be no text
            self.inputs = tuple(_spec(argument) for argument in session.get_inputs())
            self.outputs = tuple(_spec(argument) for argument in session.get_outputs())
        self._input_check = InputCheck(self.inputs)
        self.device = device
        self.device_reason = device_reason

    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once, from inputs (B, ...) to outputs (B, ...); see `hbi_engines.engine.Engine.run`."""
        if self._session is None:
            raise EngineError("the engine is closed; open the graph again to run it")
        self._input_check.check(inputs)
        names = [spec.name for spec in self.outputs]
        options = self._run_options()
        with (
            StoppedInTime(partial(setattr, options, "terminate", True), self._limit_seconds, "a run"),
            _mapped("failed while it ran the graph"),
        ):
            return dict(zip(names, self._session.run(names, dict(inputs), options), strict=True))

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def open_cpu(graph: bytes, options: EngineOptions) -> Engine:
    """Loads the graph on the processor."""
    session = _session(graph, CPU, options)
    return OnnxRuntimeEngine(session, "cpu", options.on_processor("cpu"), options.limit_seconds)


def open_cuda(graph: bytes, options: EngineOptions) -> Engine:
    """Loads the graph on the first visible NVIDIA GPU, where there is no `cuda_problem`.

    Raises:
        DeviceError: ONNX Runtime fell back to the processor all the same.
    """
    session = _session(graph, CUDA, options)
    if (provider := session.get_providers()[0]) != CUDA:
        raise DeviceError(
            f"device cuda cannot run here: ONNX Runtime fell back to {provider}; its own message above says why"
        )
    return OnnxRuntimeEngine(session, "cuda", f"cuda, {options.why}", options.limit_seconds)


def cpu_problem() -> str:
    """Returns why ONNX Runtime cannot run here at all and how to mend it; empty if no reason is known."""
    try:
        _import()
    except EngineError as error:
        return str(error)
    return ""


def cuda_problem() -> str:
    """Returns why a CUDA session cannot run here and how to mend it; empty if no reason is known."""
    try:
        runtime = _import()
    except EngineError as error:
        return str(error)
    if CUDA not in runtime.get_available_providers():
        return wheels_problem() or (
            "the installed onnxruntime is the one without CUDA; for an NVIDIA GPU: "
            'pip uninstall -y onnxruntime, then pip install "hbi-infer[gpu]"'
        )
    if problem := driver_problem():
        return problem
    if missing := _missing_libraries(runtime):
        return f'missing {", ".join(missing)}; pip install "onnxruntime-gpu[cuda,cudnn]"'
    return ""


def has_cuda() -> bool:
    """Returns whether the installed ONNX Runtime was built for CUDA.

    Raises:
        EngineError: It cannot be used at all.
    """
    return CUDA in _import().get_available_providers()


def installed_wheels() -> dict[str, str]:
    """Returns the versions of all packages that install the module onnxruntime; two overwrite each other."""
    import importlib.metadata

    found = {}
    for name in WHEELS:  # by name: looking through all packages takes a third of a second
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def wheels_problem() -> str:
    """Returns what is wrong with the installed packages and how to mend it; empty if nothing is."""
    names = list(installed_wheels())
    if len(names) < 2:
        return ""
    return (
        f"{' and '.join(names)} are both installed, into the same folder, where each overwrote files of the other: "
        f"pip uninstall -y {' '.join(names)}, then {CHOOSE}"
    )


def _missing_libraries(runtime: Any) -> list[str]:
    """Lists libraries of CUDA and cuDNN that ONNX Runtime needs and that neither the system nor pip provides."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
        runtime.preload_dlls()  # from site-packages/nvidia, where the loader does not look
    provider = Path(runtime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    listing = subprocess.run(["/usr/bin/env", "ldd", str(provider)], capture_output=True, text=True, check=False).stdout
    unresolved = [line.split()[0] for line in listing.splitlines() if "not found" in line]
    missing = []
    for name in [*unresolved, "libcudnn.so.9"]:  # cuDNN is loaded on first use, so that ldd does not list it
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def _session(graph: bytes, provider: str, how: EngineOptions) -> Any:
    runtime = _import()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = how.threads
    options.log_severity_level = 4  # errors come as exceptions; the log would print them a second time
    # Not "session.disable_cpu_ep_fallback": ONNX Runtime puts the shape arithmetic of a graph with dynamic sizes on the
    # processor by design, and that option refuses every such graph. The caller checks the provider that was chosen.

    def load() -> Any:
        with _mapped("refused the graph"):
            return runtime.InferenceSession(graph, options, providers=[provider], enable_fallback=0)

    stop = partial(options.set_load_cancellation_flag, True)
    if any(name in graph for name in LOOPS):
        # It computes what is constant in the graph: a loop may take forever, and is not stopped.
        return wait_for(load, how.limit_seconds, "loading", stop=stop)
    with StoppedInTime(stop, how.limit_seconds, "loading"):  # a thread of its own would make loading slower
        return load()


def _import() -> Any:
    """Imports onnxruntime with its telemetry, which it has from 1.32 on, switched off.

    Raises:
        EngineError: It is not installed, or its folder is empty, as where both wheels were installed and one was
            removed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, on import; a user's own choice stays
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be imported ({error}): {CHOOSE}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise EngineError(
            "ONNX Runtime is installed without contents, as it is when onnxruntime and onnxruntime-gpu were both there "
            f"and one was removed: pip uninstall -y onnxruntime onnxruntime-gpu, then {CHOOSE}"
        )
    return onnxruntime


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turns every exception of ONNX Runtime into an EngineError."""
    try:
        yield
    except _raised() as error:
        text = " ".join(str(error).split())
        raise EngineError(f"ONNX Runtime {what}: {text}") from error


@cache
def _raised() -> tuple[type[Exception], ...]:
    """Lists the exceptions of ONNX Runtime, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*found, RuntimeError, ValueError)


def _spec(argument: Any) -> TensorSpec:
    if argument.type not in NUMPY_NAMES:
        raise EngineError(f"the graph's {argument.name} is a {argument.type}; usable are {', '.join(NUMPY_NAMES)}")
    return TensorSpec(argument.name, NUMPY_NAMES[argument.type], tuple(size or "" for size in argument.shape))
