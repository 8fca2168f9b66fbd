"""Rows of videos and the totals over them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from hbi_infer.index.rows import Contents, VideoRow, clip_ids, stored, stored_seconds
from hbi_infer.index.store import FileVersion, LedgerEntry

NAMES = ["a.mp4", os.fsdecode(b"caf\xe9.mp4"), "ü\n'\".mp4", "x" * 5000]
TIMES = [0, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40, -(10**40)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", TIMES)
def test_an_entry_comes_back_whatever_its_name_and_time(name: str, time: int) -> None:
    entry = LedgerEntry(
        path=name,
        version=FileVersion(2**62, time),
        status="failed",
        reason="is empty",
        problem="damaged",
        duration_seconds=1.5,
    )
    row = VideoRow.of(entry, 1, 5, 2, 7)
    assert row.entry == entry
    assert row.is_sound(7)
    assert not row.is_sound(8)
    assert not row._replace(num_clips=3).is_sound(7)


def test_totals_follow_what_comes_and_goes() -> None:
    rows = [VideoRow.of(LedgerEntry(path=str(n), version=FileVersion(1, 1)), n, 10 * n, n, 0) for n in range(5)]
    contents = Contents.of(rows)
    assert (contents.num_videos, contents.num_clips, contents.clip_ids) == (5, 10, int(clip_ids(rows).sum()))
    assert contents.changed(gone=rows[1:3], new=[]) == Contents.of([rows[0], *rows[3:]])
    assert Contents().changed(gone=[], new=rows) == contents
    assert Contents.from_text(contents.to_text()) == contents
    np.testing.assert_array_equal(clip_ids(rows[::-1][:3]), [20, 21, 30, 31, 32, 40, 41, 42, 43])
    assert clip_ids([]).dtype == np.int64


def test_numbers_as_sqlite_holds_them() -> None:
    assert [stored(number) for number in (5, 2**63 - 1, 2**63)] == [5, 2**63 - 1, b"9223372036854775808"]
    assert (stored_seconds(None), stored_seconds(float("nan")), str(stored_seconds(-0.0))) == (None, None, "0.0")
