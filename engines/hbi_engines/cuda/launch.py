"""Launches kernels on the GPU that is here, through NVIDIA's own bindings of the CUDA driver.

Only a running plugin imports this module: without a GPU the bindings are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from cuda.bindings import driver

from hbi_engines.errors import EngineError
from hbi_engines.kernels.definitions import THREADS, Element, Kernel, Work, compile_kernel

DEFAULT_SHARED_BYTES = 48 * 1024
"""Shared memory of a block that needs no request."""


def launch(kernel: Kernel, element: Element, work: Work, addresses: Sequence[int], stream: int) -> None:
    """Adds a kernel's work to a stream of the current context.

    Args:
        kernel: The kernel.
        element: Element type of its float tensors.
        work: Sizes of the launch.
        addresses: Addresses of its inputs and then its outputs, in the memory of the GPU.
        stream: A CUDA stream.

    Raises:
        EngineError: CUDA refused the launch.
    """
    context = _call(driver.cuCtxGetCurrent)
    function = _loaded(kernel, element, int(context))
    if work.shared_bytes > DEFAULT_SHARED_BYTES:
        largest = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _call(driver.cuFuncSetAttribute, function, largest, work.shared_bytes)
    arguments = kernel.c_arguments(addresses, work)
    packed = (tuple(argument.value for argument in arguments), tuple(type(argument) for argument in arguments))
    _call(driver.cuLaunchKernel, function, *work.grid, 1, THREADS, 1, 1, work.shared_bytes, stream, packed, 0)


@cache
def _loaded(kernel: Kernel, element: Element, _context: int) -> Any:
    """Loads the kernel's function into the current context."""
    device = _call(driver.cuCtxGetDevice)
    attributes = driver.CUdevice_attribute
    major, minor = (
        _call(driver.cuDeviceGetAttribute, attribute, device)
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    cubin = compile_kernel(kernel, element, f"sm{major}{minor}")
    module = _call(driver.cuModuleLoadData, cubin)
    return _call(driver.cuModuleGetFunction, module, kernel.entry.encode())


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the CUDA driver and returns its result without the status.

    Raises:
        EngineError: The call failed.
    """
    status, *results = function(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise EngineError(f"CUDA's {function.__name__} failed ({status.name}); see 'hbi-infer doctor'")
    return results[0] if results else None
