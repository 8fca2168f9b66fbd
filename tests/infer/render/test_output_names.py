"""Names of the files that are written for the videos of a folder."""

from __future__ import annotations

import os
import random
import unicodedata
from pathlib import PurePath

import pytest

from hbi_infer.files import one_form, short_hash
from hbi_infer.render.output_names import output_paths


def named(*videos: str) -> dict[str, str]:
    paths = output_paths(map(PurePath, videos), ".srt", 255)
    return {video.as_posix(): path.as_posix() for video, path in paths.items()}


def key(path: str) -> str:
    return one_form(path).casefold()


@pytest.mark.parametrize(
    ("videos", "files"),
    [
        ("a.mp4 sub/a.mp4 c.d.mkv", "a.srt sub/a.srt c.d.srt"),
        ("a.mp4 a.mkv b.mp4", "a.mp4.srt a.mkv.srt b.srt"),
        ("a.mp4 a.mkv a.mp4.avi", "a.mp4.srt a.mkv.srt a.mp4.avi.srt"),
        ("a.mp4 A.mkv", "a.mp4.srt A.mkv.srt"),
        ("a.mp4 b.srt.mkv b.mkv", "a.srt b.srt.srt b.srt"),
        ("a.mp4 a.srt/b.mp4", "a.mp4.srt a.srt/b.srt"),
        ("a.mp4 A.SRT/b.mp4", "a.mp4.srt A.SRT/b.srt"),
    ],
)
def test_no_two_videos_share_a_file(videos: str, files: str) -> None:
    assert list(named(*videos.split()).values()) == files.split()


def test_names_that_differ_only_in_case_or_form_get_a_hash() -> None:
    composed, parted = (unicodedata.normalize(form, "Café.mp4") for form in ("NFC", "NFD"))
    for videos in (("a.mp4", "A.MP4"), (composed, parted), ("sub/a.mp4", "SUB/a.mp4")):
        files = named(*videos)
        assert len(set(map(key, files.values()))) == 2
        assert files[videos[0]] == f"{videos[0]}~{short_hash(videos[0])}.srt"


def test_the_same_videos_give_the_same_names_in_whatever_order() -> None:
    rng = random.Random(0)
    parts = ["a", "A", "a.mp4", "a.mkv", "a.srt", "a.mp4.srt", "b" * 254, "b" * 255, "é", "e\u0301", "\udcff"]
    for _ in range(100):
        folders = ["", *(f"{name}/" for name in rng.sample(parts, 3))]
        videos = list({rng.choice(folders) + rng.choice(parts) for _ in range(12)})
        files = named(*videos)
        assert len({key(name) for name in files.values()}) == len(videos)
        assert not {key(str(PurePath(name).parent)) for name in files.values()} & set(map(key, files.values()))
        assert all(len(os.fsencode(PurePath(name).name)) <= 255 for name in files.values())
        rng.shuffle(videos)
        assert named(*videos) == files


def test_names_that_are_too_long_are_cut_between_letters_and_stay_apart() -> None:
    long = "é" * 126
    files = named(f"{long}a.x", f"{long}b.x", "m" * 250 + ".avi")
    assert files["m" * 250 + ".avi"] == "m" * 250 + ".srt", "no longer than it may be"
    first, second = files[f"{long}a.x"], files[f"{long}b.x"]
    assert first != second
    assert first == "é" * 121 + f"~{short_hash(f'{long}a')}.srt"
