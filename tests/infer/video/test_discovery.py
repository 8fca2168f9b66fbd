"""The video files of a folder, and what is left out."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.options import Finding, FrameSampling
from hbi_infer.video.discovery import (
    IN_WORDS,
    SUFFIXES_NOT_READ,
    SUFFIXES_OF_SOME_VIDEOS,
    SYSTEM_FOLDERS,
    VIDEO_SUFFIXES,
    Found,
    LeftOut,
    find_videos,
    look_through,
    summary,
)
from hbi_infer.video.reader import decode
from tests.builders.video_files import FORMATS, Format, write_video


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def reasons(found: Found) -> dict[str, str]:
    return {each.path: each.reason for each in found.left_out}


def test_every_suffix_of_the_formats_is_a_video_suffix() -> None:
    assert {how.suffix for how in FORMATS.values()} <= VIDEO_SUFFIXES
    assert not (VIDEO_SUFFIXES | SUFFIXES_OF_SOME_VIDEOS) & SUFFIXES_NOT_READ
    assert {name.lower() for name in SYSTEM_FOLDERS} == SYSTEM_FOLDERS


def test_find_videos(tmp_path: Path) -> None:
    make(tmp_path, "b.MP4", "a.webm", "deep/er/c.mkv", ".hidden.mp4", ".cache/d.mp4", "notes.txt", "mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "broken_link.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_videos(tmp_path) == [tmp_path / name for name in ("a.webm", "b.MP4", "deep/er/c.mkv")]
    assert reasons(look_through(tmp_path)) == {
        ".cache": "hidden",
        ".hidden.mp4": "hidden",
        "broken_link.mp4": "linked_to_nothing",
        "loop": "linked_twice",
        "mp4": "other_suffix",
        "notes.txt": "other_suffix",
        "pipe.mp4": "not_a_file",
        "self.mp4": "linked_to_nothing",
    }
    assert find_videos(str(tmp_path)) == find_videos(tmp_path)
    with pytest.raises(InputError, match="is not a folder; name a folder that holds videos"):
        find_videos(tmp_path / "a.webm")


RENAMED = {
    "ts": (".m2t", ".tp", ".trp", ".tod", ".rec"),
    "mpg-mpeg2": (".mpe", ".m2p", ".vro", ".evo", ".mpv", ".mod"),
    "mp4": (".f4v", ".mp4v", ".lrv", ".insv", ".360", ".3gpp", ".3gp2", ".ismv"),
    "mov": (".qt", ".mqv"),
    "avi": (".divx", ".xvid"),
    "mkv": (".mk3d",),
    "wmv": (".wm",),
    "h264": (".264", ".avc"),
    "m1v": (".m1v",),
    "m2v": (".m2v", ".mp2v"),
    "hevc": (".265", ".h265"),
    "ogg": (".ogg", ".ogm", ".ogx"),
    "vcd": (".dat",),
}
"""Other suffixes that the same content has in the wild."""


@pytest.mark.parametrize("kind", RENAMED)
def test_what_is_found_by_its_suffix_is_really_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x265 = {"x265-params": "log-level=none"}
    monkeypatch.setitem(FORMATS, "m1v", Format(".m1v", "mpeg1video", muxer="mpeg1video"))
    monkeypatch.setitem(FORMATS, "m2v", Format(".m2v", "mpeg2video", muxer="mpeg2video"))
    monkeypatch.setitem(FORMATS, "hevc", Format(".hevc", "libx265", muxer="hevc", options=x265))
    monkeypatch.setitem(FORMATS, "ogg", Format(".ogg", "libvpx", muxer="ogg"))
    monkeypatch.setitem(FORMATS, "vcd", Format(".dat", "mpeg1video", muxer="vcd"))
    source = tmp_path / "source"
    write_video(source.with_suffix(FORMATS[kind].suffix), kind, num_frames=25)
    folder = tmp_path / "videos"
    folder.mkdir()
    for suffix in RENAMED[kind]:
        shutil.copy(source.with_suffix(FORMATS[kind].suffix), folder / f"a{suffix.upper()}")
    found = find_videos(folder)
    assert len(found) == len(RENAMED[kind])
    for path in found:
        assert decode(path, FrameSampling(image_size=32)).status == "ok", path.name


def test_folders_and_files_of_the_system_are_left_out(tmp_path: Path) -> None:
    folders = ("@eaDir", "#RECYCLE", "$RECYCLE.BIN", "lost+found", "System Volume Information", "__MACOSX", "Recycler")
    hidden = (".Trash", ".Trash-1000", ".Trashes", ".AppleDouble", ".@__thumb")
    make(tmp_path, "a.mp4", "._a.mp4", "recycle/b.mp4")
    make(tmp_path, *(f"sub/{name}/HOLIDAY.MP4/SYNOPHOTO_FILM_M.mp4" for name in (*folders, *hidden)))
    found = look_through(tmp_path)
    assert names(found.videos, tmp_path) == ["a.mp4", "recycle/b.mp4"]
    assert reasons(found) == {
        "._a.mp4": "hidden",
        **{f"sub/{name}": "system_folder" for name in folders},
        **{f"sub/{name}": "hidden" for name in hidden},
    }
    inside = tmp_path / "sub" / "@eaDir"
    assert len(find_videos(inside)) == 1, "a folder that is named itself is searched"


def test_linked_folders_are_searched_once_each_at_their_real_place(tmp_path: Path) -> None:
    videos, other = tmp_path / "videos", tmp_path / "other"
    make(videos, "z_real/a.mp4")
    make(other, "b.mp4", "deep/c.mp4", "deep/.hidden.mp4")
    (videos / "a_link").symlink_to(videos / "z_real")
    (videos / "drive").symlink_to(other)
    (videos / "drive_again").symlink_to(other)
    (videos / "of_drive").symlink_to(other / "deep")
    (other / "back").symlink_to(videos)
    (other / "deep" / "up").symlink_to("..")
    (videos / "root").symlink_to("/")
    (videos / "above").symlink_to(tmp_path)
    (videos / "unplugged").symlink_to(tmp_path / "nowhere")
    found = look_through(videos)
    assert names(found.videos, videos) == ["drive/b.mp4", "drive/deep/c.mp4", "z_real/a.mp4"]
    assert reasons(found) == {
        "a_link": "linked_twice",
        "above": "linked_to_parent",
        "drive/back": "linked_twice",
        "drive/deep/.hidden.mp4": "hidden",
        "drive/deep/up": "linked_twice",
        "drive_again": "linked_twice",
        "of_drive": "linked_twice",
        "root": "linked_to_parent",
        "unplugged": "linked_to_nothing",
    }
    by_link = tmp_path / "by_link"
    by_link.symlink_to(videos)
    assert names(find_videos(by_link), by_link) == names(found.videos, videos)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.gif"], "Private/x.mp4 a.mp4 cats/b.mkv cats/old/c.mp4 d[1]/d.mp4"),
        (["cats"], "Private/x.mp4 a.gif a.mp4 d[1]/d.mp4"),
        (["cats/"], "Private/x.mp4 a.gif a.mp4 d[1]/d.mp4"),
        (["./cats/old"], "Private/x.mp4 a.gif a.mp4 cats/b.mkv d[1]/d.mp4"),
        (["old"], "Private/x.mp4 a.gif a.mp4 cats/b.mkv d[1]/d.mp4"),
        (["*/old"], "Private/x.mp4 a.gif a.mp4 cats/b.mkv d[1]/d.mp4"),
        (["**/private/**"], "a.gif a.mp4 cats/b.mkv cats/old/c.mp4 d[1]/d.mp4"),
        (["/old", "/a.*"], "Private/x.mp4 cats/b.mkv cats/old/c.mp4 d[1]/d.mp4"),
        (["PRIVATE"], "Private/x.mp4 a.gif a.mp4 cats/b.mkv cats/old/c.mp4 d[1]/d.mp4"),
        (["private", "d[[]1]"], "a.gif a.mp4 cats/b.mkv cats/old/c.mp4"),
        (["?.mp4"], "a.gif cats/b.mkv"),
        ([""], "Private/x.mp4 a.gif a.mp4 cats/b.mkv cats/old/c.mp4 d[1]/d.mp4"),
        (["*"], ""),
    ],
)
def test_excluded_files_and_folders(tmp_path: Path, patterns: list[str], left: str) -> None:
    make(tmp_path, "a.mp4", "a.gif", "cats/b.mkv", "cats/old/c.mp4", "Private/x.mp4", "d[1]/d.mp4", "notes.txt")
    found = look_through(tmp_path, Finding(exclude=tuple(patterns)))
    assert " ".join(names(found.videos, tmp_path)) == left
    assert set(reasons(found).values()) <= {"excluded", "other_suffix"}


def test_an_excluded_folder_may_be_given_in_full_and_no_link_leads_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    make(folder, "a.mp4", "private/b.mp4")
    (folder / "link").symlink_to(folder / "private")
    found = look_through(folder, Finding(exclude=(f"{folder}/private",)))
    assert names(found.videos, folder) == ["a.mp4"]
    assert reasons(found) == {"link": "excluded", "private": "excluded"}


def test_patterns_and_names_in_other_forms(tmp_path: Path) -> None:
    make(tmp_path, unicodedata.normalize("NFD", "Café/é.mp4"), os.fsdecode(b"\xff.mp4"))
    composed = Finding(exclude=(unicodedata.normalize("NFC", "café"),))
    assert names(find_videos(tmp_path, composed), tmp_path) == ["\udcff.mp4"]
    not_text = Finding(exclude=(os.fsdecode(b"\xff*"),))
    assert len(find_videos(tmp_path, not_text)) == 1


def test_all_files_are_looked_into_where_asked_to(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=5)
    for name in ("clip", "clip.bin", "download.mp4.part", "old.rm"):
        shutil.copy(tmp_path / "a.mp4", tmp_path / name)
    make(tmp_path, "b.mxf", ".DS_Store")
    (tmp_path / "notes.txt").write_text("no video")
    os.mkfifo(tmp_path / "pipe")
    assert names(find_videos(tmp_path), tmp_path) == ["a.mp4"]
    found = look_through(tmp_path, Finding(all_files=True))
    assert names(found.videos, tmp_path) == ["a.mp4", "clip", "clip.bin", "download.mp4.part", "old.rm"]
    assert reasons(found) == {
        ".DS_Store": "hidden",
        "b.mxf": "format_not_read",
        "notes.txt": "no_video_inside",
        "pipe": "not_a_file",
    }


def test_a_summary_counts_and_names_formats_that_are_not_read(tmp_path: Path) -> None:
    make(tmp_path, "a.rm", "b.swf", "c.mxf", "d.y4m", "notes.txt", ".e.mp4", ".f.mp4")
    assert summary(look_through(tmp_path).left_out) == (
        "2 hidden, 4 of a format that is not read (a.rm, b.swf, c.mxf, ...), 1 without a video's suffix"
    )
    assert summary([]) == ""
    assert all(summary([LeftOut("a", reason)]).startswith(f"1 {words}") for reason, words in IN_WORDS.items())
