"""Found moments as files: their names, their folder, and videos that cannot be cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_infer.errors import InputError, VideoError
from hbi_infer.render.saved_clips import clip_names, save_clips
from hbi_infer.tasks.search import Match
from hbi_infer.video.reader import probe
from tests.builders.tiny_bundle import write_video


def match(path: Path, rank: int = 1, start: float = 0.0, end: float = 1.0) -> Match:
    return Match(
        rank=rank,
        score=1.0,
        path=path,
        start_seconds=start,
        end_seconds=end,
        best_frame_seconds=(start,),
        video_seconds=None,
    )


def test_a_name_says_rank_video_and_time() -> None:
    red, blue = Path("a/red.v2.mp4"), Path("b/blue.mkv")
    assert clip_names([[match(red), match(blue, 2, 62.04, 70)]], 255) == [
        "01 red.v2 0.0-1.0 s",
        "02 blue 62.0-70.0 s",
    ]
    assert clip_names([[match(red)], [match(red)]], 255) == ["1-01 red.v2 0.0-1.0 s", "2-01 red.v2 0.0-1.0 s"]


def test_long_names_fit_with_their_suffix() -> None:
    (name,) = clip_names([[match(Path("é" * 120 + ".mp4"))]], 143)
    assert len(f"{name}.mp4".encode()) <= 143
    assert name.startswith("01 é")


def test_moments_are_written_and_what_cannot_be_cut_is_told(tmp_path: Path) -> None:
    video = write_video(tmp_path / "red.mp4", "red")
    results = [match(video), match(tmp_path / "gone.mp4", 2), match(video, 3, 1.0, 2.0)]
    saved = list(save_clips([results], tmp_path / "new" / "folder"))
    assert [one for one, _ in saved] == results
    assert isinstance(saved[1][1], VideoError)
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["01 red 0.0-1.0 s.mp4", "03 red 1.0-2.0 s.mp4"]
    assert all(probe(file).duration_seconds == pytest.approx(1, abs=0.45) for file in files)
    with pytest.raises(InputError, match="exists already and is kept"):
        list(save_clips([results], tmp_path / "new" / "folder"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file.below.*: give another folder"):
        list(save_clips([[]], tmp_path / "file" / "below"))
