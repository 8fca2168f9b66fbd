"""Reading all that an index holds, and taking out of it what is damaged, so that the next update indexes it anew."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.checksums import SealedType, row_checksum
from hbi_infer.index.opening import check_mark, make_file, open_file, put_in_place
from hbi_infer.index.rows import CLIP_COLUMNS, INSERT_VIDEO, VIDEO_COLUMNS, Contents, VideoRow, clip_ids
from hbi_infer.index.sqlite_file import DamagedIndexError, Identity, connect, read_meta, transaction, write_meta
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress
from hbi_infer.index.writer_lock import sole_writer

UNREADABLE = (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError)
"""Errors of reading rows that are damaged."""


@dataclass(kw_only=True)
class Verification:
    """Outcome of reading an index.

    Attributes:
        videos: Number of videos of which all is as it was written.
        clips: Number of their clips.
        damaged: Fault of each video of which something has changed or is missing, as far as its name can be read. It is
            not in the index any more.
        fault: Fault of the file as a whole, such as a list that leads nowhere; empty if there is none.
    """

    videos: int = 0
    clips: int = 0
    damaged: list[VideoFault] = field(default_factory=list)
    fault: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.damaged or self.fault)

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        damaged = [fault.to_json() for fault in self.damaged]
        return {"videos": self.videos, "clips": self.clips, "damaged": damaged, "fault": self.fault}


def verify_file(
    path: Path,
    identity: Identity,
    *,
    progress: Callable[[IndexProgress], None] | None = None,
    before_mending: Callable[[], object] | None = None,
) -> Verification:
    """Reads the index at `path`; if anything is damaged, puts a new one in its place, with all videos that are sound.

    Args:
        path: The index's file.
        identity: The model and the folder that it belongs to.
        progress: Called after each video.
        before_mending: Called once if anything is damaged; if it raises an error, the file stays as it is.

    Raises:
        IndexStoreError: There is no index, it is of another model or folder, or it cannot be written.
    """
    if not path.exists():
        raise IndexStoreError(f"there is no index {path}: make it with hbi-infer index")
    fault = _fault_of_opening(path, identity)
    with sole_writer(path):
        found, sound = _read(path, identity, progress)
        found.fault = fault or found.fault
        if not found.is_sound:
            if before_mending is not None:
                before_mending()
            _mend(path, identity, sound)
    return found


def _fault_of_opening(path: Path, identity: Identity) -> str:
    """Returns the fault that does not allow to open an index; one of an older format is brought up to date."""
    if not path.stat().st_size:
        return "it has 0 bytes"
    check_mark(path)
    try:
        open_file(path, identity, rebuild=False).close()
    except DamagedIndexError as error:
        return error.fault
    return ""


def _read(
    path: Path, identity: Identity, progress: Callable[[IndexProgress], None] | None
) -> tuple[Verification, list[VideoRow]]:
    """Returns what was found, and the rows of the videos that are sound."""
    found, sound = Verification(), []
    with closing(connect(path)) as connection:
        rows = list(_readable_videos(connection))
        names = Counter(row.path for row in rows)
        content = _Content(connection, identity)
        for number, row in enumerate(rows, start=1):
            name = os.fsdecode(row.path) if row.is_sound(identity.salt) else ""
            if not name:  # it may have changed itself
                found.fault = "what it says of a video has changed"
            elif names[row.path] == 1 and content.is_sound(row):
                sound.append(row)
                found.videos, found.clips = found.videos + 1, found.clips + row.num_clips
            else:
                found.damaged.append(VideoFault(name, "has changed in the index", "damaged"))
            if progress is not None:
                progress(IndexProgress(videos_done=number, videos_total=len(rows), clips=found.clips, path=name))
        found.damaged.sort(key=lambda fault: fault.path)
        found.fault = found.fault or _fault_of_file(connection, path, rows)
    return found, sound


def _readable_videos(connection: sqlite3.Connection) -> Iterator[VideoRow]:
    """Yields every row of the table `videos` that can be read, from both ends if need be."""
    seen = set()
    for order in ("ASC", "DESC"):
        with suppress(*UNREADABLE):
            for row in connection.execute(f"SELECT {VIDEO_COLUMNS}, checksum FROM videos ORDER BY video_id {order}"):  # noqa: S608
                if row[0] not in seen:
                    seen.add(row[0])
                    yield VideoRow._make(row)
            return


class _Content:
    """The clips of an index, read video by video as they are stored."""

    def __init__(self, connection: sqlite3.Connection, identity: Identity) -> None:
        self._connection = connection
        self._salt = identity.salt
        self._seals = {
            "pooled": SealedType(("<f2", (identity.layout.width,))),
            "tokens": SealedType(identity.layout.dtype),
        }

    def is_sound(self, video: VideoRow) -> bool:
        """Returns whether all of a video is as it was written."""
        try:
            clips, pooled, tokens = self.rows(video)
            for rows, seals in zip((pooled, tokens), self._seals.values(), strict=True):
                seals.unseal(clip_ids([video]), b"".join([item for _, item in rows]))
        except UNREADABLE:
            return False
        ids = clip_ids([video]).tolist()
        return (
            all([row[0] for row in rows] == ids for rows in (clips, pooled, tokens))
            and all(row[1] == video.video_id for row in clips)
            and all(row_checksum(row[:-1], self._salt) == row[-1] for row in clips)
        )

    def rows(self, video: VideoRow) -> tuple[list[Any], list[Any], list[Any]]:
        """Returns a video's rows of the tables `clips`, `pooled` and `tokens`."""
        last = video.first_clip + video.num_clips - 1
        clips, pooled, tokens = (
            self._connection.execute(
                f"SELECT {columns} FROM {table} WHERE clip_id BETWEEN ? AND ? ORDER BY clip_id",  # noqa: S608
                (video.first_clip, last),
            ).fetchall()
            for table, columns in (
                ("clips", f"{CLIP_COLUMNS}, checksum"),
                ("pooled", "clip_id, vector"),
                ("tokens", "clip_id, record"),
            )
        )
        return clips, pooled, tokens


def _fault_of_file(connection: sqlite3.Connection, path: Path, rows: list[VideoRow]) -> str:
    """Returns the fault of the file as a whole; empty if there is none."""
    try:
        checked = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if checked != "ok":
            return str(checked).splitlines()[-1]
        if Contents.from_text(read_meta(connection, path)["contents"]) != Contents.of(rows):
            return "videos are missing"
        most = max(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES)  # noqa: S608
    except (*UNREADABLE, DamagedIndexError) as error:
        return str(error)
    return "" if most <= sum(row.num_clips for row in rows) else "clips that belong to no video"


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """Returns what an index says of itself; nothing if that is damaged."""
    try:
        return read_meta(connection, path)
    except (*UNREADABLE, DamagedIndexError):
        return {}


TABLES = ("clips", "pooled", "tokens")


def _mend(path: Path, identity: Identity, sound: list[VideoRow]) -> None:
    """Puts an index of the sound videos in the place of the damaged one; their rows stay the same."""
    new = make_file(path, identity)
    with closing(connect(path)) as old, closing(connect(new)) as connection:
        content = _Content(old, identity)
        for video in sound:
            with transaction(connection):
                connection.execute(INSERT_VIDEO, video)
                clips, pooled, tokens = content.rows(video)
                connection.executemany("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", clips)
                connection.executemany("INSERT INTO pooled VALUES (?, ?)", pooled)
                connection.executemany("INSERT INTO tokens VALUES (?, ?)", tokens)
        with transaction(connection):
            write_meta(connection, _meta(old, path) | identity.meta(), Contents.of(sound))
    put_in_place(new, path)
