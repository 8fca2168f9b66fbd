"""Asks NVIDIA's driver about the GPUs of this machine, through nothing but the driver's own library."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libcuda.so.1"
NAME_LIMIT_BYTES = 256
MAJOR, MINOR = 75, 76
"""Numbers of the two attributes that make up the compute capability."""


@dataclass(frozen=True)
class GPU:
    """A visible GPU.

    Attributes:
        name: Name that NVIDIA gives it.
        compute_capability: Architecture that code must be built for, such as "sm89".
        memory_bytes: Size of its memory.
    """

    name: str
    compute_capability: str
    memory_bytes: int


def driver_problem() -> str:
    """Returns why no program here can use a GPU and how to mend it; empty if no reason is known."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"there is no NVIDIA driver ({LIBRARY} cannot be loaded); install it and check with nvidia-smi"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return (
            f"the NVIDIA driver finds no GPU (CUDA driver status {status}); "
            "check nvidia-smi and the environment variable CUDA_VISIBLE_DEVICES"
        )
    return ""


def visible_gpus() -> list[GPU]:
    """Lists the GPUs in the driver's order, of which programs use the first; none where there is a `driver_problem`."""
    if driver_problem():
        return []
    driver = ctypes.CDLL(LIBRARY)
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    return [_gpu(driver, number) for number in range(count.value)]


def _gpu(driver: ctypes.CDLL, number: int) -> GPU:
    device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(NAME_LIMIT_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, NAME_LIMIT_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    parts = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return GPU(name.value.decode(), f"sm{''.join(parts)}", memory.value)


def driver_versions() -> dict[str, str]:
    """Returns the driver's version and the newest CUDA that it runs, as far as they can be found."""
    found = {}
    module = Path("/sys/module/nvidia/version")
    if module.is_file():
        found["driver"] = module.read_text(encoding="ascii").strip()
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return found
    version = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
        found["cuda"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return found
