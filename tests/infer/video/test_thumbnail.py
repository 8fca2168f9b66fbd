"""Small pictures of videos: exact in small files, sought in large ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import VideoError
from hbi_infer.video import thumbnail
from hbi_infer.video.thumbnail import read_thumbnail, work
from tests.builders.tiny_bundle import write_video
from tests.paths import ROOT


@pytest.mark.parametrize("largest", [10**9, 0], ids=["whole", "sought"])
def test_the_frame_that_is_shown_then(tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "EXACT_BYTES", largest)
    path = write_video(tmp_path / "a.mp4", "red", "green", "blue")
    for seconds, channel in ((0.0, 0), (1.9, 0), (2.0, 1), (3.95, 1), (4.0, 2), (5.9, 2), (99.0, 2)):
        picture = read_thumbnail(path, seconds, longest_side=32)
        assert picture.shape == (24, 32, 3)
        assert picture.mean(axis=(0, 1)).argmax() == channel, seconds


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "samples").iterdir()) if path.name != "damaged.mp4"],
    ids=lambda path: path.suffix + path.name[:9],
)
def test_both_ways_give_the_same_picture(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0.0, 1.34, 3.0):
        whole = read_thumbnail(path, seconds, longest_side=96)
        with monkeypatch.context() as patch:
            patch.setattr(thumbnail, "EXACT_BYTES", 0)
            sought = read_thumbnail(path, seconds, longest_side=96)
        assert np.abs(whole.astype(int) - sought).mean() < 2, seconds


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for path in (tmp_path / "a.mp4", tmp_path / "none.mp4", ROOT / "samples" / "damaged.mp4"):
        with pytest.raises(VideoError):
            read_thumbnail(path, 1.0, longest_side=32)


def test_a_picture_is_a_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail, "_prepare", lambda _: None)  # this process goes on
    job = {"path": str(write_video(tmp_path / "a.mp4", "red")), "seconds": 0.5, "longest_side": 32}
    answer = work(job | {"limit_seconds": 20.0, "memory_bytes": 0}, b"", lambda *_: None)
    assert answer.document == {"width": 32, "height": 24}
    assert bytes(answer.arrays[0])[:2] == b"\xff\xd8"
