"""The machine that a measurement was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("hbi-infer", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt-cu13", "tensorrt-rtx-cu13"),
    *("tokenizers", "typer", "torch"),
)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPU if any, operating system, Python and package versions, and how busy the machine is."""
    return {
        "processor": _processor(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": command_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average_1_minute": round(os.getloadavg()[0], 2),
    }


def code_version() -> str | None:
    """What git calls the code that runs, None where it is not a working copy."""
    describe = ("git", "--no-optional-locks", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return command_output(*describe) or None


def peak_memory_bytes() -> int:
    """The most memory that this process held at a time.

    Not `ru_maxrss`, which in a process that was just started counts the memory of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def gpu_memory_bytes() -> int | None:
    """What all processes together hold of the first GPU's memory, None where there is no GPU."""
    used = command_output("nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    return int(used) * 2**20 if used.isdigit() else None


def command_output(*command: str) -> str:
    """What a command printed; empty when it is not installed or failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
