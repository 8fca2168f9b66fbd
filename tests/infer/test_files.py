"""Files that a user names: looked at with clear errors, and written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.files import check_target, exists, is_file, is_folder, write_whole


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
