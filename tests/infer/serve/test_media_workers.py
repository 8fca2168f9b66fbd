"""Workers that go on from job to job, and are replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbi_infer.errors import VideoError
from hbi_infer.serve import media_workers
from hbi_infer.serve.media_workers import MediaWorkers
from hbi_infer.video.pool import LEAST_MEMORY_BYTES
from tests.builders.tiny_bundle import write_video


@pytest.fixture(scope="module")
def workers() -> Iterator[MediaWorkers]:
    made = MediaWorkers("hbi_infer.video.thumbnail", "make its picture")
    yield made
    made.close()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_video(tmp_path_factory.mktemp("job") / "red.mp4", "red")
    limits = {"limit_seconds": 20.0, "memory_bytes": LEAST_MEMORY_BYTES}
    return {"path": str(path), "seconds": 0.5, "longest_side": 64, **limits}


def process_of(workers: MediaWorkers) -> int:
    [worker] = workers._all
    return worker._process.pid


def test_one_process_does_job_after_job(workers: MediaWorkers, job: dict[str, Any]) -> None:
    document, content = workers.run(job, seconds=20)
    assert (document, content[:2]) == ({"width": 64, "height": 48}, b"\xff\xd8")
    process = process_of(workers)
    assert workers.run(job, seconds=20)[1] == content
    assert process_of(workers) == process


def test_a_file_that_cannot_be_read_costs_only_itself(
    workers: MediaWorkers, job: dict[str, Any], tmp_path: Path
) -> None:
    workers.run(job, seconds=20)
    process = process_of(workers)
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoError):
        workers.run(job | {"path": str(tmp_path / "no.mp4")}, seconds=20)
    assert process_of(workers) == process


def test_a_worker_that_is_killed_is_replaced(workers: MediaWorkers, job: dict[str, Any]) -> None:
    _, content = workers.run(job, seconds=20)
    os.kill(process_of(workers), signal.SIGKILL)
    assert workers.run(job, seconds=20)[1] == content


def test_a_file_that_takes_too_long(workers: MediaWorkers, job: dict[str, Any]) -> None:
    with pytest.raises(VideoError, match="make its picture"):
        workers.run(job | {"limit_seconds": 1e-5}, seconds=20)
    assert workers.run(job, seconds=20)[1]


def test_an_answer_has_a_limit(job: dict[str, Any], workers: MediaWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_workers, "MOST_ANSWER_BYTES", 10)
    with pytest.raises(VideoError, match="say too much"):
        workers.run(job, seconds=20)
    monkeypatch.undo()
    assert workers.run(job, seconds=20)[1]
