"""Moments of videos: their frames, and the packets that can be copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import VideoError
from hbi_infer.video.moment import Moment, Target, write_moment
from hbi_infer.video.reader import probe
from tests.builders.video_files import write_video


def silent(_document: object, _arrays: object = (), /) -> None:
    """Tells nobody."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a keyframe every ten frames, and frames between that are shown out of order."""
    path = tmp_path_factory.mktemp("moment") / "video.mp4"
    write_video(path, num_frames=100, keyframe_interval=10, options={"sc_threshold": "0"}, moving=True)
    return path


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (0.0, 1.0, (0, 25)),
        (1.0, 1.0, (25, 26)),
        (0.99, 1.05, (24, 27)),
        (3.9, 99.0, (97, 100)),
        (50.0, 60.0, (99, 100)),
    ],
)
def test_a_moment_has_the_frames_that_are_shown(video: Path, start: float, end: float, frames: tuple[int, int]) -> None:
    moment = Moment.of(str(video), start, end, silent)
    assert (moment.first, moment.end) == frames


def test_packets_begin_at_a_keyframe_within_a_frame_of_the_start(video: Path) -> None:
    for start, begin in ((0.8, 20), (0.84, 20), (0.76, 20), (0.88, None), (0.6, None)):
        copied = Moment.of(video, start, 1.6, silent).copied()
        assert (copied and copied[0]) == begin
    copied = Moment.of(video, 0.8, 1.6, silent).copied()
    assert copied is not None
    _, numbers = copied
    ticks = Moment.of(video, 0.8, 1.6, silent).clock.ticks
    shown = np.sort(ticks[numbers])
    keys = Moment.of(video, 0.8, 1.6, silent).clock.frame_keys
    assert shown[0] == keys[20]
    assert set(keys[20:40]) <= set(shown), "no frame of the moment is missing"


def test_a_stream_without_times_is_not_copied(tmp_path: Path) -> None:
    write_video(tmp_path / "video.h264", "h264", num_frames=50)
    moment = Moment.of(tmp_path / "video.h264", 0.0, 1.0, silent)
    assert moment.copied() is None
    with Target(tmp_path / "out.mp4") as file:
        assert write_moment(moment, file, silent) == (".mp4", False)
    assert probe(tmp_path / "out.mp4").duration_seconds == pytest.approx(1.0, abs=0.05)


def test_what_no_container_takes_is_encoded(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying fails midway: the file begins anew."""
    moment = Moment.of(video, 0.8, 1.6, silent)
    monkeypatch.setattr("hbi_infer.video.moment._COPIED_FORMATS", frozenset())
    with Target(tmp_path / "out.mp4") as file:
        file.write(b"begun")
        assert write_moment(moment, file, silent) == (".mp4", False)
    assert probe(tmp_path / "out.mp4").duration_seconds == pytest.approx(0.8, abs=0.05)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"^is "):
        Moment.of(tmp_path / "a.mp4", 0, 1, silent)


def test_a_target_keeps_the_refusal(tmp_path: Path) -> None:
    target = Target(tmp_path / "none" / "file")
    with pytest.raises(FileNotFoundError), target:
        pass
    assert isinstance(target.error, FileNotFoundError)
    with Path("/dev/full").open("wb") as full:
        target = Target(tmp_path / "file")
        with pytest.raises(OSError, match="No space left"), target:  # noqa: PT012
            target._file.close()
            target._file = full
            target.write(b"x" * 100_000)
    assert target.error is not None
