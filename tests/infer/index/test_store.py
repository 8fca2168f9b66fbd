"""Versions of files, and what the ledger says about a change."""

from __future__ import annotations

import os
from pathlib import Path

from hbi_infer.index.store import FileVersion, LedgerEntry


def test_a_version_is_another_one_once_the_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    before = FileVersion.of(file)
    assert before is not None
    assert before == FileVersion.of(file)
    assert str(before) == f"3 {file.stat().st_mtime_ns}"
    file.write_bytes(b"more")
    os.utime(file, ns=(0, before.modified_ns))
    assert FileVersion.of(file) != before, "another size"
    file.write_bytes(b"two")
    os.utime(file, ns=(0, before.modified_ns + 1))
    assert FileVersion.of(file) != before, "another time"


def test_a_file_that_cannot_be_looked_at_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "none", tmp_path / "link", Path("a\0b"), tmp_path / ("x" * 300)):
        assert FileVersion.of(path) is None


def test_a_file_that_is_gone_has_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    version = FileVersion.of(file)
    assert version is not None
    entry = LedgerEntry(path="a.mp4", version=version)
    assert not entry.has_changed(file)
    file.write_bytes(b"more")
    assert entry.has_changed(file)
    file.unlink()
    assert not entry.has_changed(file)
