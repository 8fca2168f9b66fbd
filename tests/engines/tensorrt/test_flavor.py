"""Modules of TensorRT: installed, missing and hollow."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hbi_engines.engine_files import Flavor
from hbi_engines.errors import DeviceError
from hbi_engines.tensorrt.flavor import collecting_logger, compute_capabilities, import_flavor


def test_a_module_that_is_missing_or_hollow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flavor = Flavor("tensorrt-none", "tensorrt_none", "none", "nothing")
    with pytest.raises(DeviceError, match=r'tensorrt_none cannot be imported .*pip install "hbi-infer\[none\]"'):
        import_flavor(flavor)
    (tmp_path / "tensorrt_none").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="tensorrt_none is installed without contents: pip uninstall it"):
        import_flavor(flavor)
    sys.modules.pop("tensorrt_none")
    (tmp_path / "tensorrt_none" / "__init__.py").write_text("class Builder: ...\n")
    assert import_flavor(flavor).Builder


def test_gpus_that_can_be_built_for_without_having_one() -> None:
    members = {"NONE": 0, "SM86": 1, "SM120": 2}
    rtx = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members))
    assert compute_capabilities(rtx) == ["sm86", "sm120"]
    assert compute_capabilities(SimpleNamespace()) == []


def test_a_logger_keeps_errors_alone() -> None:
    class Logger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    logger = collecting_logger(SimpleNamespace(ILogger=Logger))
    logger.log(Logger.WARNING, "slow")
    logger.log(Logger.ERROR, "no  such\nlayer")
    assert logger.errors == ["no such layer"]
