"""A bench of PyTorch in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hbi_training.weights.checkpoint import save_checkpoint
from tests.builders.exports import Exported


def test_bench_compares_a_bundle_with_pytorch(whole: Exported, tmp_path: Path) -> None:
    save_checkpoint(whole.checkpoint, tmp_path / "model")
    command = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "bench", "--device", "cpu,torch"]
    command += ["--bundle", str(whole.folder), "--checkpoint", str(tmp_path / "model"), "--batch", "2"]
    command += ["--stage", "encode,text encode,answer", "--seconds", "0.01", "--json", str(tmp_path / "all.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, cpu, eager = json.loads((tmp_path / "all.json").read_text())["result"]["devices"]
    assert "eager PyTorch" in eager["reason"]
    assert eager["agreement"]["smallest_cosine"] > 0.9999
    assert 0 < eager["agreement"]["largest_difference"] < 1e-4
    for part in (cpu, eager):
        assert [made["stage"] for made in part["measurements"]] == ["encode", "text encode", "answer"]
