"""The machine that a measurement was taken on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from hbi_infer.bench.machine import peak_memory_bytes


def test_the_peak_is_of_this_process_alone() -> None:
    """A child of a parent with much memory holds little."""
    ballast = np.ones(2**27, np.uint8)
    code = "from hbi_infer.bench.machine import peak_memory_bytes; print(peak_memory_bytes())"
    child = int(subprocess.check_output([sys.executable, "-c", code]))
    assert 2**20 < child < ballast.nbytes < peak_memory_bytes()
