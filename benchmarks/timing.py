"""Times a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def timed(call: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Returns the median, fastest and slowest wall-clock seconds of a call, after one that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        taken.append(round(time.perf_counter() - started, 6))
    counted = taken[1:]
    return {
        "median": statistics.median(counted),
        "fastest": min(counted),
        "slowest": max(counted),
        "repeats": repeats,
    }
