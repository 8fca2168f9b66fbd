"""Pictures that are made once and kept within a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_infer.errors import VideoError
from hbi_infer.serve.thumbnails import Thumbnails, etag_of, width_for
from tests.builders.tiny_bundle import write_video


def test_pictures_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    file = write_video(tmp_path / "red.mp4", "red")
    thumbnails = Thumbnails(2500)
    try:
        made = {name: thumbnails.make(name, file, 0.5, 160) for name in "abcdefgh"}
        assert sum(map(len, made.values())) > 2500
        kept = [name for name in made if thumbnails.known(name)]
        assert kept
        assert kept == list("abcdefgh")[-len(kept) :]
        assert sum(len(made[name]) for name in kept) <= 2500
        (tmp_path / "no.mp4").write_bytes(b"no")
        with pytest.raises(VideoError):
            thumbnails.make("x", tmp_path / "no.mp4", 0.5, 160)
        assert thumbnails.known("x") is None
        file.unlink()
        assert thumbnails.make(kept[-1], file, 0.5, 160) == made[kept[-1]], "it is not made again"
    finally:
        thumbnails.close()


def test_few_kinds_of_a_picture() -> None:
    assert [width_for(asked) for asked in (1, 160, 161, 900, 9000)] == [160, 160, 320, 960, 1280]
    assert etag_of("a", 1) != etag_of("a", 2)
    assert etag_of("a", 1) == etag_of("a", 1)
