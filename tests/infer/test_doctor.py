"""The doctor on the machine as it is, and on machines that were broken on purpose."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hbi_engines import onnx_runtime
from hbi_engines.cuda.driver import visible_gpus
from hbi_infer.catalog.settings import settings_file
from hbi_infer.doctor import MODULES, DeviceTrial, Diagnosis, Part, default_model_part, sandbox_part, try_device
from hbi_infer.video.sandbox import can_confine
from tests.builders.packages import write_package_record
from tests.builders.tiny_bundle import write_tiny_bundle
from tests.paths import ROOT


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "doctor", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def healthy() -> dict[str, Any]:
    """What it says of the machine as it is; one with both packages of ONNX Runtime would not pass."""
    done = run("--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_what_works_here(healthy: dict[str, Any]) -> None:
    assert healthy["healthy"] is True
    assert healthy["problems"] == []
    devices = {trial["device"]: trial for trial in healthy["devices"]}
    assert list(devices) == list(MODULES)
    assert devices["cpu"]["status"] == "works"
    assert devices["openvino"]["status"] == "works"
    for name, trial in devices.items():
        assert trial["status"] in ("works", "cannot"), trial
        assert trial["remark"], name
        if not visible_gpus() and name in ("cuda", "tensorrt", "tensorrt-rtx"):
            assert trial["status"] == "cannot"


def test_plugins_register_with_what_is_installed(healthy: dict[str, Any]) -> None:
    for trial in healthy["plugins"]:
        installed = importlib.util.find_spec(MODULES[trial["device"]]) is not None
        assert trial["status"] == ("works" if installed else "cannot"), trial
        assert ("hbi::TokenMerge 1" in trial["remark"]) == installed


def test_versions(healthy: dict[str, Any]) -> None:
    versions = {part["name"]: part["version"] for part in healthy["parts"]}
    assert versions["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["ONNX Runtime"] == next(iter(onnx_runtime.installed_wheels().values()))
    assert versions["FFmpeg"][0].isdigit()
    for name, module in (("OpenVINO", "openvino"), ("TensorRT-RTX", "tensorrt_rtx"), ("TensorRT", "tensorrt")):
        assert bool(versions[name]) == (importlib.util.find_spec(module) is not None)
    remarks = {part["name"]: part["remark"] for part in healthy["parts"]}
    assert (versions["default model"], remarks["default model"]) == ("shapes", "embedded")
    assert bool(remarks["NVIDIA driver"]) == (not visible_gpus())


def test_the_sandbox_of_decoders(healthy: dict[str, Any]) -> None:
    (part,) = (part for part in healthy["parts"] if part["name"] == "decoding sandbox")
    assert part["version"] == ("on" if "seccomp" in part["remark"] or "Landlock" in part["remark"] else "")
    assert "limits of memory" in part["remark"] or not can_confine()


def test_a_kernel_without_a_sandbox_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "from hbi_infer import doctor\nfrom hbi_infer.video.sandbox import Fences\n"
    (tmp_path / "old_kernel.py").write_text(
        f"{module}doctor.confine = lambda **_: Fences(limits=('memory',))\nwork = doctor.work\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hbi_infer.doctor.__name__", "old_kernel")
    part = sandbox_part()
    assert (part.version, part.remark[:20], part.remark[-16:]) == ("", "files can be opened:", "limits of memory")
    monkeypatch.setattr("hbi_infer.doctor.can_confine", lambda: False)
    assert sandbox_part() == Part("decoding sandbox", "", "only Linux has one")
    monkeypatch.undo()
    monkeypatch.setattr("hbi_infer.doctor.__name__", "no_such_module")
    assert sandbox_part().remark.startswith("a process that was confined died with exit code 1")


def test_the_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HBI_BUNDLE", "tiny/clip")
    absent = Part("default model", "tiny/clip", "not on this machine: hbi-infer models get")
    assert default_model_part() == (absent, "")
    bundle = write_tiny_bundle(tmp_path / "mine")
    monkeypatch.setenv("HBI_BUNDLE", str(bundle))
    assert default_model_part() == (Part("default model", str(bundle), f"{bundle}, as HBI_BUNDLE says"), "")
    (bundle / "text_encoder.onnx").unlink()
    assert default_model_part()[1].startswith("default model: ")
    monkeypatch.delenv("HBI_BUNDLE")
    settings_file().parent.mkdir()
    settings_file().write_text("bundle = 3")
    part, problem = default_model_part()
    assert (part.version, problem[:38]) == ("", "default model: bundle of the settings ")


@pytest.mark.gpu
def test_gpus_are_named(healthy: dict[str, Any]) -> None:
    from tests.builders.gpu import require_gpu

    require_gpu("" if visible_gpus() else "there is no GPU")
    assert any(part["name"] == "GPU 0" and part["version"].startswith("sm") for part in healthy["parts"])


def test_both_packages_of_onnx_runtime_are_an_error_with_the_cure(tmp_path: Path) -> None:
    write_package_record(tmp_path, "onnxruntime-gpu", "onnxruntime")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["part", "version"]
    assert any(line.startswith("cpu ") and "yes" in line for line in lines)
    (problem,) = (line for line in lines if line.startswith("problem: ") and "both installed" in line)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install" in problem


@pytest.mark.parametrize(
    ("code", "remark"),
    [
        (
            "import os, sys; sys.stderr.write('clash\\n'); sys.stderr.flush(); os.abort()",
            "its process died of SIGABRT: clash",
        ),
        ("import sys; sys.exit(7)", "its process died with exit code 7: it said nothing; install openvino anew"),
        ("import time; time.sleep(600)", "it was not done within 5 s"),
        (
            "raise ImportError('libtbb.so is missing')",
            "OpenVINO cannot be imported (libtbb.so is missing); pip install",
        ),
        ("", "openvino is installed without contents"),
    ],
)
def test_a_runtime_that_is_installed_and_broken_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, remark: str
) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    trial = try_device("openvino", time_limit_seconds=5 if "sleep" in code else 120)
    assert trial.status == "fails"
    assert remark in trial.remark


def test_the_text_has_a_row_for_each_and_a_line_for_each_problem() -> None:
    diagnosis = Diagnosis(
        (Part("Python", "3.11"), Part("cuDNN", "", "a remark")),
        (
            DeviceTrial("cpu", "works", "fine"),
            DeviceTrial("cuda", "fails", "no"),
            DeviceTrial("tpu", "cannot", "-"),
        ),
        (DeviceTrial("tensorrt", "works", "hbi::TokenMerge 1"),),
        ("mend it",),
    )
    assert diagnosis.to_text().splitlines() == [
        "part    version",
        "Python  3.11",
        "cuDNN   -        a remark",
        "",
        "device  works",
        "cpu     yes    fine",
        "cuda    FAILS  no",
        "tpu     no     -",
        "",
        "plugins of  register",
        "tensorrt    yes       hbi::TokenMerge 1",
        "",
        "problem: mend it",
    ]
