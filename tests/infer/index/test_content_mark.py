"""Marks: equal for equal edges, another after any change at either end, none for a file that changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbi_infer.index.content_mark import EDGE_BYTES, FileLook, read_mark
from hbi_infer.index.store import FileVersion


def digest(path: Path) -> bytes:
    found = FileLook.at_content(path)
    assert found
    return found[1]


@pytest.mark.parametrize("size", [1, EDGE_BYTES - 1, EDGE_BYTES, EDGE_BYTES + 7, 2 * EDGE_BYTES, 5 * EDGE_BYTES])
def test_a_change_at_either_end_is_another_hash(tmp_path: Path, size: int) -> None:
    content = bytearray(os.urandom(size))
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    digests = {digest(file)}
    for place in {0, min(size, EDGE_BYTES) - 1, max(0, size - EDGE_BYTES), size - 1}:
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        digests.add(digest(file))
    assert len(digests) == 1 + len({0, min(size, EDGE_BYTES) - 1, max(0, size - EDGE_BYTES), size - 1})
    file.write_bytes(content)
    assert digest(file) in digests


def test_only_the_edges_are_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.mp4"
    with file.open("wb") as opened:
        opened.truncate(10**12)
    before = digest(file)
    with file.open("r+b") as opened:
        opened.seek(10**11)
        opened.write(b"middle")
    assert digest(file) == before


def test_a_file_of_another_version_has_no_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    assert read_mark(file, FileVersion(0, 0)) is None
    assert read_mark(tmp_path, FileVersion(0, 0)) is None
    file.write_bytes(b"1")
    look = FileLook.at(file)
    assert look
    mark = read_mark(file, look.version)
    assert mark
    assert mark.status_ns == look.status_ns
    assert read_mark(file, FileVersion(2, look.version.modified_ns)) is None
    assert FileLook.at(tmp_path / "none.mp4") is None
