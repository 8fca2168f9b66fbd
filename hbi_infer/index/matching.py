"""Filters on videos, as functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from hbi_infer.files import inside_matcher, path_matcher
from hbi_infer.options import Filter

Passes = Callable[[str, float | None, int], bool]
"""(path relative to the folder, duration in seconds, time of the last change in nanoseconds) -> whether it passes."""


def matcher(where: Filter) -> Passes:
    """Returns a function that tells whether a video passes a filter."""
    matches = [] if where.path_glob is None else [path_matcher(where.path_glob)]
    if where.folder is not None and (folder := PurePosixPath(where.folder).as_posix()) != ".":
        matches.append(inside_matcher(folder))
    least = -float("inf") if where.min_seconds is None else where.min_seconds
    greatest = float("inf") if where.max_seconds is None else where.max_seconds
    any_duration = where.min_seconds is None and where.max_seconds is None
    first, last = nanoseconds(where.newer_than, -float("inf")), nanoseconds(where.older_than, float("inf"))

    def passes(path: str, seconds: float | None, modified_ns: int) -> bool:
        return (
            all(each(path) for each in matches)
            and (any_duration or (seconds is not None and least <= seconds <= greatest))
            and first <= modified_ns < last
        )

    return passes


def nanoseconds(moment: datetime | None, default: float) -> float:
    """Returns nanoseconds since 1970; infinity for the ends of the calendar, and `default` for no moment."""
    if moment is None:
        return default
    try:
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):  # the ends of the calendar, in local time
        return float("inf") if moment.year > 1970 else -float("inf")
    return since // timedelta(microseconds=1) * 1000
