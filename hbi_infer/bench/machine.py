"""Describes the machine that a measurement was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hbi_engines.operating_system import (
    load_average,
    memory_bytes,
    processor_facts,
    usable_cpus,
)

PACKAGES = (
    *("hbi-infer", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt-cu13", "tensorrt-rtx-cu13"),
    *("tokenizers", "typer", "torch"),
)
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_tile": "AMX-TILE",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
}
"""Flag of Linux -> name of the instruction set; those that decide how fast a network runs on a processor."""


def describe_machine() -> dict[str, Any]:
    """Describes processor, memory, GPU if any, operating system, Python, packages, and how busy the machine is."""
    memory, load = memory_bytes(), load_average()
    return {
        **describe_processor(processor_facts()),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(usable_cpus()),
        "memory_gib": memory and round(memory / 2**30, 1),
        "gpu": command_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average_1_minute": load and round(load, 2),
    }


def describe_processor(facts: Mapping[str, str]) -> dict[str, Any]:
    """Returns a processor's model and its `INSTRUCTION_SETS`; None for the sets where the system does not tell.

    Args:
        facts: Names and values of `hbi_engines.operating_system.processor_facts`.
    """
    flags = facts["flags"].split() if "flags" in facts else None
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": flags and [name for flag, name in INSTRUCTION_SETS.items() if flag in flags],
    }


def machine_sentence(machine: Mapping[str, Any]) -> str:
    """Returns one line about a machine that `describe_machine` described, also before it named instruction sets.

    >>> machine = {"processor": "Xeon", "usable_cores": 2, "memory_gib": 7.7, "gpu": None, "load_average_1_minute": 0.5}
    >>> machine_sentence(machine)
    'Xeon, 2 cores, 8 GiB, no GPU; load 0.5 when it ended'
    >>> machine_sentence(machine | {"instruction_sets": ["AVX2", "AVX-VNNI"]})
    'Xeon (AVX2, AVX-VNNI), 2 cores, 8 GiB, no GPU; load 0.5 when it ended'
    """
    memory, load = machine["memory_gib"], machine["load_average_1_minute"]
    parts = [processor_phrase(machine), f"{machine['usable_cores']} cores", memory and f"{memory:.0f} GiB"]
    sentence = ", ".join([*filter(None, parts), machine["gpu"] or "no GPU"])
    return sentence if load is None else f"{sentence}; load {load} when it ended"


def processor_phrase(machine: Mapping[str, Any]) -> str:
    """Returns the processor's model, with its instruction sets where they are known."""
    sets = machine.get("instruction_sets")
    if sets is None:
        return str(machine["processor"])
    return f"{machine['processor']} ({', '.join(sets) or 'no AVX2'})"


def code_version() -> str | None:
    """Returns git's name of the running code; None outside a working copy."""
    describe = ("git", "--no-optional-locks", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return command_output(*describe) or None


def gpu_memory_bytes() -> int | None:
    """Returns the memory of the first GPU that all processes together hold; None without a GPU."""
    used = command_output("nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    return int(used) * 2**20 if used.isdigit() else None


def command_output(*command: str) -> str:
    """Returns a command's stdout; empty when it is not installed or failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
