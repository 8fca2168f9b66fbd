from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.bench.plan import Plan
from hbi_infer.bench.report import is_suspect
from hbi_infer.bench.run import MOST, Agreement, DeviceResult, agreement, run
from tests.builders.tiny_bundle import write_tiny_bundle

NO_TORCH = "hbi_infer.bench.worker"


def test_a_bundle_that_answers_and_captions_is_measured_at_that(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", "qa", "caption")
    plan = Plan(bundle=bundle, devices=("cpu",), batches=(2,), stages=("answer", "caption"), seconds=0.01)
    report = run(plan, NO_TORCH)
    host, cpu = report.devices
    assert [made.stage for made in cpu.measurements] == ["answer", "caption"]
    assert not host.measurements


def test_agreement_leaves_padding_out_and_tells_merged_tokens_from_others() -> None:
    reference = {
        "video entity tokens": np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32),
        "video entity weights": np.array([[1.0, 0.0]], np.float32),
        "video event tokens": np.array([[[1.0, 0.0]]], np.float32),
        "video event weights": np.array([[1.0]], np.float32),
    }
    other = dict(reference)
    other["video entity tokens"] = np.array([[[0.6, 0.8], [0.0, -1.0]]], np.float32)
    other["video event tokens"] = np.array([[[0.0, 3.0]]], np.float32)
    found = agreement(other, reference, "entity")
    assert found.smallest_cosine_unmerged == pytest.approx(0.6)
    assert found.smallest_cosine == 0.0
    assert found.largest_difference == 3.0


def test_not_a_number_is_suspect() -> None:
    reference = {"text entity tokens": np.ones((1, 1, 2), np.float32), "text entity weights": np.ones((1, 1))}
    broken = reference | {"text entity tokens": np.full((1, 1, 2), np.nan, np.float32)}
    found = agreement(broken, reference, "entity")
    assert is_suspect(DeviceResult(device="cuda", agreement=found))
    assert found == Agreement(largest_difference=MOST, smallest_cosine=0.0, smallest_cosine_unmerged=0.0)
    assert json.loads(json.dumps(asdict(found), allow_nan=False)) == asdict(found)


def test_a_process_that_dies_is_a_row(tmp_path: Path) -> None:
    plan = Plan(
        bundle=write_tiny_bundle(tmp_path / "tiny"),
        checkpoint=tmp_path,
        devices=("torch",),
        batches=(1,),
        stages=("tokenise",),
        seconds=0.001,
    )
    report = run(plan, "hbi_infer.no_such_module")
    assert "its process died with exit code 1" in report.devices[1].problem
    assert "no_such_module" in report.devices[1].problem


def test_a_process_that_hangs_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text(
        """
import time
def work(job, content, tell):
    print("printed by a library", flush=True)
    tell({"reason": "it began"})
    time.sleep(600)
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    plan = Plan(
        bundle=write_tiny_bundle(tmp_path / "tiny"),
        checkpoint=tmp_path,
        devices=("torch",),
        stages=("tokenise",),
        batches=(1,),
        seconds=0.001,
    )
    (hanging,) = run(plan, "hanging", silence_seconds=4).devices[1:]
    assert hanging.reason == "it began"
    assert "died of SIGKILL (it had said nothing for 4 s): printed by a library" in hanging.problem


def test_torch_needs_a_checkpoint(tmp_path: Path) -> None:
    plan = Plan(bundle=write_tiny_bundle(tmp_path / "tiny"), devices=("torch",), stages=("tokenise",), seconds=0.001)
    assert "--checkpoint" in run(plan, NO_TORCH).devices[1].problem
