"""Rows of the embedded store as its tables hold them, each with a checksum, and the totals that say that none is lost.

A video's clips are put together, so their ids follow each other, and a video's row names them all. No id is used again
for another clip: what a row with a checksum says of a clip is true for ever.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from hbi_infer.index.checksums import row_checksum
from hbi_infer.index.store import ClipIds, ContentMark, FileVersion, LedgerEntry

if TYPE_CHECKING:
    from hbi_infer.index.store import Status
    from hbi_infer.video.decoded_video import Problem

VIDEO_COLUMNS = (
    "video_id, CAST(path AS BLOB), size_bytes, modified_ns, CAST(status AS BLOB), CAST(reason AS BLOB), "
    "CAST(problem AS BLOB), duration_seconds, first_clip, num_clips, digest, status_ns"
)
"""Columns of a `VideoRow`, but for the checksum that is made of them. A name is bytes, for it need not be text."""

INSERT_VIDEO = (
    "INSERT INTO videos (video_id, path, size_bytes, modified_ns, status, reason, problem, duration_seconds, "
    "first_clip, num_clips, digest, status_ns, checksum) "
    "VALUES (?, CAST(? AS TEXT), ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, ?)"
)
"""Statement that takes a `VideoRow`; in an index that was of an older format, columns stand in another order."""

CLIP_COLUMNS = "clip_id, video_id, start_seconds, end_seconds, frame_seconds"
"""Columns that the checksum of a clip is made of."""


class VideoRow(NamedTuple):
    """A row of the table `videos`.

    Attributes:
        video_id: Number of the row.
        path: Path relative to the folder.
        size_bytes: Size of the file, as `stored` gives it.
        modified_ns: Time of the last change, as `stored` gives it.
        status: Outcome of decoding.
        reason: Description of the fault.
        problem: Kind of fault; None when there is none.
        seconds: Duration of the video; None when not known.
        first_clip: Id of its first clip; 0 if it has none.
        num_clips: Number of its clips.
        digest: Hash of the file's head and tail; None if not known.
        status_ns: Time at which anything about the file last changed, as `stored` gives it; None without a hash.
        checksum: Checksum of all that stands above.
    """

    video_id: int
    path: bytes
    size_bytes: int | bytes
    modified_ns: int | bytes
    status: bytes
    reason: bytes
    problem: bytes | None
    seconds: float | None
    first_clip: int
    num_clips: int
    digest: bytes | None
    status_ns: int | bytes | None
    checksum: int

    @classmethod
    def of(cls, entry: LedgerEntry, video_id: int, first_clip: int, num_clips: int, salt: int) -> VideoRow:
        """Returns the row of an entry of the ledger; the salt is that of `row_checksum`."""
        row = (
            video_id,
            os.fsencode(entry.path),
            stored(entry.version.size_bytes),
            stored(entry.version.modified_ns),
            entry.status.encode(),
            entry.reason.encode(errors="backslashreplace"),
            entry.problem and entry.problem.encode(),
            stored_seconds(entry.duration_seconds),
            first_clip if num_clips else 0,
            num_clips,
            entry.mark.digest if entry.mark else None,
            stored(entry.mark.status_ns) if entry.mark else None,
        )
        return cls(*row, row_checksum(row, salt))

    def is_sound(self, salt: int) -> bool:
        """Returns whether the checksum is right."""
        return row_checksum(self[:-1], salt) == self.checksum

    @property
    def version(self) -> FileVersion:
        """The file as it was when it was indexed."""
        return FileVersion(int(self.size_bytes), int(self.modified_ns))

    @property
    def entry(self) -> LedgerEntry:
        """The entry in the ledger."""
        return LedgerEntry(
            path=os.fsdecode(self.path),
            version=self.version,
            status=cast("Status", self.status.decode()),
            reason=self.reason.decode(),
            problem=cast("Problem", self.problem.decode()) if self.problem else None,
            duration_seconds=self.seconds,
            mark=None if self.digest is None else ContentMark(self.digest, int(self.status_ns or 0)),
        )


@dataclass(frozen=True)
class Contents:
    """Totals over the table `videos`.

    Attributes:
        num_videos: Number of rows.
        num_clips: Number of clips.
        clip_ids: Sum of the clips' ids.
        checksums: Sum of the rows' checksums.
    """

    num_videos: int = 0
    num_clips: int = 0
    clip_ids: int = 0
    checksums: int = 0

    @classmethod
    def of(cls, rows: Iterable[VideoRow]) -> Contents:
        """Returns the totals over some rows."""
        rows = list(rows)
        return cls(
            len(rows),
            sum(row.num_clips for row in rows),
            sum(row.num_clips * (2 * row.first_clip + row.num_clips - 1) // 2 for row in rows),
            sum(row.checksum for row in rows),
        )

    def changed(self, *, gone: Iterable[VideoRow], new: Iterable[VideoRow]) -> Contents:
        """Returns the totals after some rows are gone and others have come."""
        one, less, more = map(astuple, (self, Contents.of(gone), Contents.of(new)))
        return Contents(*(a - b + c for a, b, c in zip(one, less, more, strict=True)))

    def to_text(self) -> str:
        """Returns the totals as text."""
        return json.dumps(astuple(self))

    @classmethod
    def from_text(cls, text: str) -> Contents:
        """Returns the totals that `to_text` wrote."""
        return cls(*json.loads(text))


def clip_ids(rows: Iterable[VideoRow]) -> ClipIds:
    """Returns the ids (N,), ascending, of the clips of videos."""
    # (2, videos)
    ranges = np.array([(row.first_clip, row.num_clips) for row in rows], np.int64).reshape(-1, 2).T
    firsts, numbers = ranges[:, np.argsort(ranges[0])]
    ends = np.cumsum(numbers)
    ids: ClipIds = np.repeat(firsts - (ends - numbers), numbers) + np.arange(numbers.sum())
    return ids


def stored(number: int) -> int | bytes:
    """Returns a whole number as SQLite can hold it: as digits where its integers end.

    File times may lie before 1677 or after 2262, which are the ends of 64 bits of nanoseconds.
    """
    return number if -(2**63) <= number < 2**63 else b"%d" % number


def stored_seconds(seconds: float | None) -> float | None:
    """Returns seconds as they come back from SQLite, which knows neither nan nor -0."""
    return None if seconds is None or math.isnan(seconds) else float(seconds) + 0.0
