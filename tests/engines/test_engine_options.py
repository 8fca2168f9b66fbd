"""The reason that a device on the processor gives."""

from __future__ import annotations

from hbi_engines.engine_options import EngineOptions


def test_the_reason_counts_threads() -> None:
    assert EngineOptions(1, "as asked").on_processor("cpu") == "cpu (1 thread), as asked"
    assert EngineOptions(8, "as asked").on_processor("openvino") == "openvino (8 threads), as asked"
