"""Manages memory and work on the first visible GPU, through NVIDIA's own bindings of the CUDA runtime.

Only a running engine imports this module: without a GPU the bindings are not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime

from hbi_engines.engine import CudaArray
from hbi_engines.errors import EngineError


class CapturedWork:
    """Work on a stream, captured as a CUDA graph: one launch for all of it, at the captured addresses."""

    def __init__(self, graph: Any, stream: int) -> None:
        self._stream = stream
        self._executable = _call(runtime.cudaGraphInstantiate, graph, 0)
        _call(runtime.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """Adds the work to the stream once more."""
        _call(runtime.cudaGraphLaunch, self._executable, self._stream)

    def close(self) -> None:
        """Frees the graph."""
        _call(runtime.cudaGraphExecDestroy, self._executable)


class CudaWorkspace:
    """A stream of work, and named buffers that are reused and grow on demand."""

    def __init__(self) -> None:
        self.stream = int(_call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking))
        self._buffers: dict[str, tuple[int, int]] = {}

    def reserve(self, name: str, size_bytes: int) -> int:
        """Returns the address of a buffer of at least `size_bytes`; its contents may be lost."""
        address, capacity = self._buffers.get(name, (0, 0))
        if capacity < size_bytes or not address:
            if address:
                del self._buffers[name]
                _call(runtime.cudaFree, address)
            capacity = max(size_bytes, 1)  # an empty array has an address too
            address = int(_call(runtime.cudaMalloc, capacity))
            self._buffers[name] = (address, capacity)
        return address

    def write(self, name: str, array: npt.NDArray[Any] | CudaArray) -> None:
        """Fills a buffer with a contiguous array (N, ...) from either memory, before any work that is added later."""
        address = self._buffers[name][0]
        if isinstance(array, np.ndarray):
            source, size_bytes, kind = array.ctypes.data, array.nbytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        else:
            described = array.__cuda_array_interface__
            source, kind = described["data"][0], runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            size_bytes = int(np.prod(described["shape"])) * np.dtype(described["typestr"]).itemsize
        if size_bytes:
            _call(runtime.cudaMemcpyAsync, address, source, size_bytes, kind, self.stream)

    def read(self, name: str, into: npt.NDArray[Any]) -> None:
        """Fills an array (N, ...) from a buffer, after the work added so far; it is valid after `synchronize`."""
        if into.nbytes:
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            _call(runtime.cudaMemcpyAsync, into.ctypes.data, self._buffers[name][0], into.nbytes, kind, self.stream)

    def capture(self, work: Callable[[], None]) -> CapturedWork:
        """Records work that only adds to the stream, without doing it.

        Raises:
            EngineError: The work cannot be captured.
        """
        _call(runtime.cudaStreamBeginCapture, self.stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed)
        try:
            work()
        finally:  # work that fails must not leave the stream capturing
            graph = _call(runtime.cudaStreamEndCapture, self.stream)
        return CapturedWork(graph, self.stream)

    def synchronize(self) -> None:
        """Waits until all work is done."""
        _call(runtime.cudaStreamSynchronize, self.stream)

    def close(self) -> None:
        """Frees the buffers and the stream."""
        for name in list(self._buffers):
            _call(runtime.cudaFree, self._buffers.pop(name)[0])
        if self.stream:
            _call(runtime.cudaStreamDestroy, self.stream)
            self.stream = 0


def wait_for_other_work() -> None:
    """Waits for work on all streams: an array that another library made may not be filled yet."""
    _call(runtime.cudaDeviceSynchronize)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the CUDA runtime and returns its result without the status.

    Raises:
        EngineError: The call failed.
    """
    status, *results = function(*arguments)
    if status != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(status)
        raise EngineError(
            f"CUDA's {function.__name__} failed: {text.decode()} (error {int(status)}); see 'hbi-infer doctor', and "
            "give smaller batches if it ran out of memory"
        )
    return results[0] if results else None
