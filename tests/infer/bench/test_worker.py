"""The job of a process that measures one device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hbi_infer.bench.worker import BenchJob


def test_a_job_comes_through_as_it_went(tmp_path: Path) -> None:
    job = BenchJob(
        device="cpu",
        bundle=tmp_path,
        checkpoint=None,
        videos=(tmp_path / "a.mp4",),
        batches=(1, 2),
        stages=("encode",),
        seconds=1.5,
        threads=None,
        encodings=tmp_path / "e.npz",
    )
    for sent in (job, replace(job, checkpoint=tmp_path, threads=2)):
        assert BenchJob.from_document(json.loads(json.dumps(sent.to_document()))) == sent
