"""Converted videos and cut moments, as files without a name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbi_infer.errors import VideoError
from hbi_infer.serve.converted import Converted, cut_moment
from hbi_infer.serve.job_queue import GivenUpError, Job
from tests.builders.tiny_bundle import write_video
from tests.paths import ROOT

AVI = ROOT / "samples" / "two-big-red-rings-move-left.avi"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache folder; nothing is left there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    assert not list((tmp_path / "cache" / "hbi-infer" / "converted").iterdir())


def content(descriptor: int) -> bytes:
    """Reads it as a response does: from any place, whatever other responses read."""
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def test_a_video_is_converted_once(tmp_path: Path) -> None:
    converted = Converted(10**9, 100.0)
    first = content(converted.open("a", AVI, Job()))
    assert first[4:8] == b"ftyp"
    assert content(converted.open("a", tmp_path / "gone.avi", Job())) == first
    converted.close()


def test_old_ones_give_way(tmp_path: Path) -> None:
    red = write_video(tmp_path / "red.mp4", "red")
    size = len(content(Converted(10**9, 100.0).open("a", red, Job())))
    converted = Converted(2 * size, 100.0)
    for key in "abc":
        os.close(converted.open(key, red, Job()))
    with pytest.raises(VideoError):
        converted.open("a", tmp_path / "gone.mp4", Job())
    assert len(content(converted.open("b", tmp_path / "gone.mp4", Job()))) == size
    converted.close()


def test_what_nobody_wants_any_more_is_ended(tmp_path: Path) -> None:
    job = Job()
    job.give_up()
    with pytest.raises(GivenUpError):
        Converted(10**9, 100.0).open("a", AVI, job)


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    for limits, file in (((10**9, 1.0), AVI), ((10, 100.0), AVI), ((10**9, 100.0), tmp_path / "no.mp4")):
        with pytest.raises(VideoError):
            Converted(*limits).open("a", file, Job())


def test_a_moment_is_cut(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", "red", "green", "blue")
    descriptor, suffix = cut_moment(path, 2.0, 4.0)
    assert (suffix, content(descriptor)[4:8]) == (".mp4", b"ftyp")
    with pytest.raises(VideoError):
        cut_moment(tmp_path / "none.mp4", 0.0, 1.0)
