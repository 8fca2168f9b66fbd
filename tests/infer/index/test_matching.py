"""Filters at the ends of the calendar and of file times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hbi_infer.index.matching import matcher, nanoseconds
from hbi_infer.options import EVERYTHING, Filter


@pytest.mark.parametrize("modified_ns", [-(10**30), 10_413_792_000 * 10**9, 10**30])
def test_files_of_any_time_are_compared(modified_ns: int) -> None:
    """10,413,792,000 s is the year 2300, which 64 bits of nanoseconds do not reach."""
    assert matcher(EVERYTHING)("a.mp4", None, modified_ns)
    is_future = modified_ns > 0
    for year in (1, 1678, 2026, 2299):
        moment = datetime(year, 1, 1, tzinfo=UTC)
        assert matcher(Filter(newer_than=moment))("a.mp4", None, modified_ns) == is_future
        assert matcher(Filter(older_than=moment))("a.mp4", None, modified_ns) != is_future


def test_a_moment_is_exact_and_the_ends_of_the_calendar_are_infinite() -> None:
    assert nanoseconds(datetime(2026, 11, 27, 12, 0, 0, 123456, tzinfo=UTC), 0) == 1_795_780_800_123_456_000
    assert nanoseconds(datetime(9999, 12, 31, tzinfo=UTC), 0) == 253_402_214_400 * 10**9
    assert nanoseconds(None, 5) == 5
    assert nanoseconds(datetime(1600, 1, 1, tzinfo=UTC), 0) == -11_676_096_000 * 10**9


def test_patterns_of_paths() -> None:
    for pattern, path, expected in [
        ("*/cats/*", "a/cats/b.mp4", True),
        ("[^a]*", "b.mp4", True),
        ("[^a]*", "a.mp4", False),
        ("a?.mp4", "a\n.mp4", True),
        ("\udcff*", "\udcff.mp4", True),
    ]:
        assert matcher(Filter(path_glob=pattern))(path, None, 0) == expected
