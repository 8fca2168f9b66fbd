"""Files that a process was given open: read from the start by each reader, and as their paths are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbi_infer.options import FrameSampling
from hbi_infer.video.opened_files import OpenedFile, opened, opened_file, status
from hbi_infer.video.reader import decode
from tests.builders.video_files import write_video


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"0123456789")
    return tmp_path / "file"


def test_readers_have_places_of_their_own(path: Path) -> None:
    with path.open("rb") as file:
        first, second = OpenedFile(path, file.fileno()), OpenedFile(path, file.fileno())
        assert (first.read(4), second.read(2), first.read(), first.read(3)) == (b"0123", b"01", b"456789", b"")
        assert (first.seek(-3, os.SEEK_END), first.read(1), first.tell()) == (7, b"7", 8)
        assert (first.seek(-2, os.SEEK_CUR), first.seek(3), second.tell()) == (6, 3, 2)
        target = bytearray(4)
        assert (second.readinto(target), bytes(target)) == (4, b"2345")
        with pytest.raises(OSError, match="before the start"):
            second.seek(-1)
        first.close()
        assert second.read(1) == b"6"
        assert second.name == str(path)


def test_a_file_is_given_for_a_block_that_closes_it(path: Path, tmp_path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    moved = path.rename(tmp_path / "moved")
    path.write_bytes(b"another")
    with opened(path, descriptor):
        given = opened_file(path)
        assert given is not None
        assert given.read() == b"0123456789"
        assert status(path).st_size == 10
        assert opened_file(moved) is None
    assert opened_file(path) is None
    assert status(path).st_size == 7
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with opened(path, None):
        assert opened_file(path) is None


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_a_video_decodes_as_by_its_path(tmp_path: Path, suffix: str) -> None:
    path, sampling = tmp_path / f"video.{suffix}", FrameSampling(image_size=32)
    write_video(path, num_frames=40)
    expected = decode(path, sampling)
    hidden = path.rename(tmp_path / "hidden")
    with opened(path, os.open(hidden, os.O_RDONLY)):
        found = decode(path, sampling)
    assert (found.status, found.info, len(found.clips)) == ("ok", expected.info, len(expected.clips))
    for clip, other in zip(found.clips, expected.clips, strict=True):
        assert clip.frames.tobytes() == other.frames.tobytes()
