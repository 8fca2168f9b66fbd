"""The video files of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.video.discovery import VIDEO_SUFFIXES, find_videos
from tests.builders.video_files import FORMATS


def test_every_suffix_of_the_formats_is_a_video_suffix() -> None:
    assert {how.suffix for how in FORMATS.values()} <= VIDEO_SUFFIXES


def test_find_videos(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.webm", "deep/er/c.mkv", ".hidden.mp4", ".cache/d.mp4", "notes.txt", "mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "broken_link.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_videos(tmp_path) == [tmp_path / name for name in ("a.webm", "b.MP4", "deep/er/c.mkv")]
    with pytest.raises(InputError, match="is not a folder; name a folder that holds videos"):
        find_videos(tmp_path / "a.webm")
