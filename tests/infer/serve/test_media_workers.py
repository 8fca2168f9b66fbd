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
from hbi_infer.video.sandbox import can_confine
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


def run(workers: MediaWorkers, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return workers.run(job, file=Path(job["path"]), seconds=20)


def process_of(workers: MediaWorkers) -> int:
    [worker] = workers._all
    return worker._process.pid


def test_one_process_does_job_after_job(workers: MediaWorkers, job: dict[str, Any]) -> None:
    document, content = run(workers, job)
    assert (document, content[:2]) == ({"width": 64, "height": 48}, b"\xff\xd8")
    process = process_of(workers)
    assert run(workers, job)[1] == content
    assert process_of(workers) == process


def test_a_file_that_cannot_be_read_costs_only_itself(
    workers: MediaWorkers, job: dict[str, Any], tmp_path: Path
) -> None:
    run(workers, job)
    process = process_of(workers)
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoError):
        run(workers, job | {"path": str(tmp_path / "no.mp4")})
    assert process_of(workers) == process


def test_a_worker_that_is_killed_is_replaced(workers: MediaWorkers, job: dict[str, Any]) -> None:
    _, content = run(workers, job)
    os.kill(process_of(workers), signal.SIGKILL)
    assert run(workers, job)[1] == content


def test_a_file_that_takes_too_long(workers: MediaWorkers, job: dict[str, Any]) -> None:
    with pytest.raises(VideoError, match="make its picture"):
        run(workers, job | {"limit_seconds": 1e-5})
    assert run(workers, job)[1]


def test_an_answer_has_a_limit(job: dict[str, Any], workers: MediaWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_workers, "MOST_ANSWER_BYTES", 10)
    with pytest.raises(VideoError, match="say too much"):
        run(workers, job)
    monkeypatch.undo()
    assert run(workers, job)[1]


@pytest.mark.skipif(not can_confine(), reason="only Linux has these fences")
def test_a_file_that_breaks_a_rule_costs_only_itself(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_pictures.py").write_text(
        "import socket\nfrom hbi_infer.video import thumbnail\nread = thumbnail.read_thumbnail\n"
        "def read_thumbnail(path, *arguments, **options):\n"
        "    if path.endswith('bad.mp4'):\n        socket.socket()\n"
        "    return read(path, *arguments, **options)\n"
        "thumbnail.read_thumbnail = read_thumbnail\nwork = thumbnail.work\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    workers = MediaWorkers("faulty_pictures", "make its picture")
    try:
        assert run(workers, job)[1][:2] == b"\xff\xd8"
        bad = Path(job["path"]).with_name("bad.mp4")
        bad.hardlink_to(job["path"])
        with pytest.raises(VideoError, match=r"make its picture \(SIGSYS\)"):
            run(workers, job | {"path": str(bad)})
        assert run(workers, job)[1][:2] == b"\xff\xd8"
        with pytest.raises(VideoError, match=r"gone\.mp4' cannot be opened"):
            run(workers, job | {"path": str(tmp_path / "gone.mp4")})
    finally:
        workers.close()
