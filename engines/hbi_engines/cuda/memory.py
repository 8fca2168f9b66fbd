"""Memory and work on the first visible GPU, through NVIDIA's own bindings of the CUDA runtime.

Only `tensorrt_runtime` imports this, and only to run an engine: without a GPU the bindings are not needed.
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
    """Work on a stream as a CUDA graph: one launch for all of it, at the addresses that it was captured with."""

    def __init__(self, graph: Any, stream: int) -> None:
        self._stream = stream
        self._executable = _call(runtime.cudaGraphInstantiate, graph, 0)
        _call(runtime.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """Add the work to the stream once more."""
        _call(runtime.cudaGraphLaunch, self._executable, self._stream)

    def close(self) -> None:
        """Free the graph."""
        _call(runtime.cudaGraphExecDestroy, self._executable)


class CudaWorkspace:
    """A stream of work, and named buffers that are used again and grow when more is asked for."""

    def __init__(self) -> None:
        self.stream = int(_call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking))
        self._buffers: dict[str, tuple[int, int]] = {}

    def reserve(self, name: str, size_bytes: int) -> int:
        """The address of a buffer of at least so many bytes; what it held before may be lost."""
        address, capacity = self._buffers.get(name, (0, 0))
        if capacity < size_bytes or not address:
            if address:
                del self._buffers[name]
                _call(runtime.cudaFree, address)
            capacity = max(size_bytes, 1)  # an array without elements has an address too
            address = int(_call(runtime.cudaMalloc, capacity))
            self._buffers[name] = (address, capacity)
        return address

    def write(self, name: str, array: npt.NDArray[Any] | CudaArray) -> None:
        """Fill a buffer with an array without gaps from either memory, before any work that is added later."""
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
        """Fill an array from a buffer, behind the work that was added before; it holds it after `synchronize`."""
        if into.nbytes:
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            _call(runtime.cudaMemcpyAsync, into.ctypes.data, self._buffers[name][0], into.nbytes, kind, self.stream)

    def capture(self, work: Callable[[], None]) -> CapturedWork:
        """Work that only adds to the stream; it is recorded, not done.

        Raises:
            EngineError: The work cannot be captured.
        """
        _call(runtime.cudaStreamBeginCapture, self.stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed)
        try:
            work()
        finally:  # a stream is left as it was, even by work that failed
            graph = _call(runtime.cudaStreamEndCapture, self.stream)
        return CapturedWork(graph, self.stream)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        _call(runtime.cudaStreamSynchronize, self.stream)

    def close(self) -> None:
        """Free the buffers and the stream."""
        for name in list(self._buffers):
            _call(runtime.cudaFree, self._buffers.pop(name)[0])
        if self.stream:
            _call(runtime.cudaStreamDestroy, self.stream)
            self.stream = 0


def wait_for_other_work() -> None:
    """Wait for work on all streams: an array that another library made may not be filled yet."""
    _call(runtime.cudaDeviceSynchronize)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the CUDA runtime returns besides its status.

    Raises:
        EngineError: It failed.
    """
    status, *results = function(*arguments)
    if status != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(status)
        raise EngineError(
            f"CUDA's {function.__name__} failed: {text.decode()} (error {int(status)}); see 'hbi-infer doctor', and "
            "give smaller batches if it ran out of memory"
        )
    return results[0] if results else None
