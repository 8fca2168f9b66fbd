"""Files that a user names: looked at with clear errors, and written as a whole or not at all."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.files import (
    check_target,
    exists,
    fitting_name,
    inside_matcher,
    is_file,
    is_folder,
    longest_name,
    path_matcher,
    write_whole,
)


def test_what_is_at_a_path(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"x")
    link.symlink_to(tmp_path / "nowhere")
    assert [exists(path) for path in (file, tmp_path, link, file / "below")] == [True, True, False, False]
    assert (is_file(file), is_file(tmp_path), is_folder(tmp_path), is_folder(file)) == (True, False, True, False)
    assert not exists(Path("a\0b")), "a name that no file can have"
    with pytest.raises(InputError, match=r"cannot look at .*: mend its permissions, or give another path"):
        exists(tmp_path / ("x" * 300))


def test_a_target_is_refused_before_there_is_anything_to_write(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_target(tmp_path / "new", overwrite=False)
    check_target(tmp_path / "old", overwrite=True)
    with pytest.raises(InputError, match="exists already: give --force to overwrite it"):
        check_target(tmp_path / "old", overwrite=False)
    with pytest.raises(InputError, match=r"there is no folder .*none to write new to"):
        check_target(tmp_path / "none" / "new", overwrite=True)


def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_whole(target, b"old", overwrite=False)
    write_whole(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    with pytest.raises(InputError, match="exists already"):
        write_whole(target, b"other", overwrite=False)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .* \(No space left on device\): free space, or give another"):
        write_whole(target, b"never", overwrite=True)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target], "no part of a new file is left"


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    longest = tmp_path / ("m" * longest_name(tmp_path))
    write_whole(longest, b"content", overwrite=False)
    assert longest.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [longest]
    closed = tmp_path / "file" / "below"
    with pytest.raises(InputError, match=r"there is no folder"):
        write_whole(closed, b"", overwrite=True)


def test_advice_is_about_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .* \(Is a directory\): give another --out$"):
        write_whole(tmp_path / "folder", b"", overwrite=True)


def test_a_name_is_cut_where_it_would_not_fit() -> None:
    assert fitting_name("a", ".srt", 255) == "a.srt"
    assert fitting_name("a" * 251, ".srt", 255) == "a" * 251 + ".srt"
    cut = fitting_name("a" * 252, ".srt", 255)
    assert len(cut) == 255
    assert cut != fitting_name("a" * 253, ".srt", 255)
    assert len(os.fsencode(fitting_name("é\udcff" * 90, ".srt", 143))) <= 143


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.avi", "HOLIDAY.AVI", True),
        ("*.AVI", "holiday.avi", False),
        ("HOLIDAY.avi", "HOLIDAY.AVI", False),
        ("*/cats/*", "A/Cats/b/c.mp4", True),
        ("cats", "my cats", False),
        ("?.mp4", "é.mp4", True),
        ("[a-c].mp4", "B.mp4", True),
        ("[A-C].mp4", "b.mp4", False),
        ("[!a].mp4", "b.mp4", True),
        ("[^a].mp4", "A.mp4", False),
        ("a[", "a[", True),
        ("straße*", "STRASSE", False),
        ("ärger", "ÄRGER", True),
        ("\udcff*", "\udcff\n.mp4", True),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    for form in ("NFC", "NFD"):
        for other in ("NFC", "NFD"):
            match = path_matcher(unicodedata.normalize(form, pattern))
            assert match(unicodedata.normalize(other, path)) is matches


def test_what_lies_in_a_folder() -> None:
    inside = inside_matcher("d[1]/é*")
    assert inside(unicodedata.normalize("NFD", "D[1]/É*/a.mp4"))
    assert not inside("d[1]/éa/a.mp4")
    assert not inside("d[1]/é*")


def test_a_pattern_of_many_stars_is_quick() -> None:
    assert not path_matcher("*a" * 30 + "b")("a" * 200)
