"""The machine that a measurement was taken on, and where measurements are written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("HBI_BENCHMARK_RESULTS", Path(__file__).parent / "results"))
PACKAGES = ("hbi-infer", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "tokenizers", "typer", "torch")


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPU if any, operating system, Python and package versions, and how busy the machine is."""
    return {
        "processor": _processor(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average_1_minute": round(os.getloadavg()[0], 2),
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `result` with the time, the code version and the machine to `benchmarks/results/<name>.json`."""
    describe = ("git", "--no-optional-locks", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    document = {
        "benchmark": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": _output(*describe) or None,
        "machine": describe_machine(),
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


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


def _output(*command: str) -> str:
    """What the command printed; empty when it is not installed or failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
