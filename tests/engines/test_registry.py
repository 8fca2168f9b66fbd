"""Devices, threads, and the runtimes behind them."""

from __future__ import annotations

import pytest

from hbi_engines.errors import DeviceError
from hbi_engines.registry import RUNTIMES, open_engine
from tests.engines.test_onnx_runtime import weighted_sum


def test_an_unknown_device_and_a_wrong_number_of_threads() -> None:
    with pytest.raises(DeviceError, match="no device 'gpu'; choose one of: auto, cpu, cuda"):
        open_engine(weighted_sum(), "gpu")
    with pytest.raises(DeviceError, match="threads is 0"):
        open_engine(weighted_sum(), "cpu", threads=0)


def test_a_runtime_joins_by_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "another", RUNTIMES["cpu"])
    assert open_engine(weighted_sum(), "another").outputs[0].name == "total"
    with pytest.raises(DeviceError, match=r"auto, cpu, cuda, .*, another"):
        open_engine(weighted_sum(), "none")
