"""Each benchmark runs in small and writes its JSON with the machine's description."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scoring", ["--clips", "300"]),
        ("index_scale", ["--clips", "1000"]),
        ("startup", ["--clips", "50", "--repeats", "1"]),
        ("indexing", ["--videos", "samples"]),
        ("banzhaf", ["--pairs", "4", "--sampled-pairs", "2", "--samples", "2"]),
    ],
)
def test_benchmark(name: str, arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "HBI_BENCHMARK_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert document["benchmark"] == name
    assert document["machine"]["usable_cores"] >= 1
    assert document["result"]
