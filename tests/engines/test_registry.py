"""Devices, threads, and the runtimes behind them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hbi_engines.errors import DeviceError
from hbi_engines.registry import RUNTIMES, open_engine, physical_cores
from tests.engines.test_onnx_runtime import weighted_sum


def test_an_unknown_device_and_a_wrong_number_of_threads() -> None:
    with pytest.raises(DeviceError, match="no device 'gpu'; choose one of: auto, cpu, cuda"):
        open_engine(weighted_sum(), "gpu")
    with pytest.raises(DeviceError, match="threads is 0"):
        open_engine(weighted_sum(), "cpu", threads=0)


def test_threads_are_the_physical_cores_of_the_process() -> None:
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))
    script = "from hbi_engines.registry import physical_cores; print(physical_cores())"
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


def test_a_runtime_joins_by_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "another", RUNTIMES["cpu"])
    assert open_engine(weighted_sum(), "another").outputs[0].name == "total"
    with pytest.raises(DeviceError, match=r"auto, cpu, cuda, .*, another"):
        open_engine(weighted_sum(), "none")
