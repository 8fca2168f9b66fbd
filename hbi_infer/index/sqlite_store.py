"""The embedded store: one SQLite file in WAL mode.

Each video is written in one transaction: a process may be killed at any moment, and any number of processes may read
while one writes. Each kind of data has a table of its own, so that a search reads only what it
needs: the pooled vectors of 100,000 clips are 50 MB, their tokens 900 MB.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import IndexStoreError
from hbi_infer.files import inside_matcher, path_matcher
from hbi_infer.index.sqlite_file import (
    Identity,
    begin_anew,
    check_folder,
    check_model,
    damaged,
    explained,
    open_file,
    sole_writer,
    transaction,
)
from hbi_infer.index.store import ClipIds, FileVersion, LedgerEntry, StoredClip
from hbi_infer.options import EVERYTHING, VIDEOS_BY_SUFFIX, Filter, Finding
from hbi_infer.tokens.layout import PackedTokens, TokenLayout, widen
from hbi_infer.tokens.similarity import top

if TYPE_CHECKING:
    from hbi_infer.video.decoded_video import Clip


class SqliteStore:
    """Videos, clips and tokens of one folder, of one model, in the file `path`.

    Args:
        path: The file; an index that is there is opened, else one is made.
        identity: The model and the folder that it belongs to.
        rebuild: Whether the first video that is put takes the place of all that it holds; see `begins_anew`.

    Attributes:
        path: The file, absolute.
        begins_anew: Whether the next `put` throws away all else, in the same transaction. Everything stays until then,
            and if another process makes the index anew first.

    Raises:
        IndexStoreError: It is of another model or folder, of a newer format, damaged, no index at all, or cannot be
            written. Every method raises it when the file cannot be read or written any more.
    """

    def __init__(self, path: Path, identity: Identity, *, rebuild: bool = False) -> None:
        self._connection = open_file(path, identity, rebuild=rebuild)
        self.path = path.absolute()
        self.begins_anew = rebuild
        self._identity = identity
        self._finding = VIDEOS_BY_SUFFIX
        self._num_writes = 0
        self._resident: tuple[tuple[int, int], ClipIds, npt.NDArray[np.float32]] | None = None
        self._known_schema = self._schema()

    @property
    def layout(self) -> TokenLayout:
        """Layout of the records that `fetch_tokens` returns."""
        return self._identity.layout

    def close(self) -> None:
        """Closes the file; the store cannot be used afterwards."""
        self._connection.close()

    def version(self) -> tuple[int, int]:
        """Returns another value after every change, whichever process made it; refuses tokens of another model."""
        # SQLite counts the changes of other connections only.
        version = self._rows("PRAGMA data_version")[0][0], self._num_writes
        with explained(self.path):
            check_model(self._connection, self.path, self._identity)
        return version

    def was_made_anew(self) -> bool:
        """Returns whether another process has emptied the index since this one opened it or made it anew."""
        return self._schema() != self._known_schema

    def num_clips(self) -> int:
        """Returns the number of clips."""
        return int(self._rows("SELECT count(*) FROM clips")[0][0])

    def ledger(self) -> dict[str, LedgerEntry]:
        """Returns the entry of every file that was indexed or failed to be, by path."""
        rows = self._rows("SELECT path, size_bytes, modified_ns, status, reason, problem, duration_seconds FROM videos")
        if not all(isinstance(row[0], str) and isinstance(row[4], str) for row in rows):
            raise IndexStoreError(damaged(self.path, "names or reasons that are no text"))
        return {
            path: LedgerEntry(
                path=path,
                version=FileVersion(size, modified),
                status=status,
                reason=reason,
                problem=problem,
                duration_seconds=seconds,
            )
            for path, size, modified, status, reason, problem, seconds in rows
        }

    def finding(self) -> Finding:
        """Returns which files of the folder are taken for videos, as it was last asked for."""
        rows = [] if self.begins_anew else self._rows("SELECT value FROM meta WHERE key = 'finding'")
        if not rows:
            return self._finding
        with self._sensible():
            known = json.loads(rows[0][0])
            if not (isinstance(known, dict) and all(isinstance(each, str) for each in known["exclude"])):
                raise ValueError(known)
            return Finding(exclude=known["exclude"], all_files=known["all_files"] is True)

    def remember(self, finding: Finding) -> None:
        """Keeps which files are taken for videos; an index that begins anew does so with its first video."""
        self._finding = finding
        if not self.begins_anew:
            with self._transaction() as execute:
                self._write_finding(execute)

    def _write_finding(self, execute: Callable[..., sqlite3.Cursor]) -> None:
        execute("INSERT OR REPLACE INTO meta VALUES ('finding', ?)", (json.dumps(asdict(self._finding)),))

    @contextmanager
    def sole_writer(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the right to fill the index, which one process has at a time.

        Args:
            on_wait: Called once if another process has it and this one begins to wait.
        """
        with sole_writer(self.path, on_wait):
            if self.was_made_anew():  # while this one waited: once is enough
                self.begins_anew, self._known_schema = False, self._schema()
            if not self.begins_anew:
                with explained(self.path):
                    check_folder(self._connection, self.path, self._identity)
                    check_model(self._connection, self.path, self._identity)
            yield

    def put(self, video: LedgerEntry, clips: Sequence[Clip], records: PackedTokens, pooled: npt.NDArray[Any]) -> None:
        """Stores a video with its clips, in place of what was known of its path.

        Args:
            video: Its entry in the ledger.
            clips: B clips, in order; their frames are not kept.
            records: (B,) packed tokens.
            pooled: (B, D) unit vectors; kept in half precision, which changes no cosine by more than 0.001.
        """
        with self._transaction() as execute:
            if self.begins_anew:
                begin_anew(self._connection, self._identity)
                self._write_finding(execute)
            path = os.fsencode(video.path)
            execute("DELETE FROM videos WHERE path = CAST(? AS TEXT)", (path,))
            video_id = execute(
                "INSERT INTO videos (path, size_bytes, modified_ns, status, reason, problem, duration_seconds) "
                "VALUES (CAST(? AS TEXT), ?, ?, ?, ?, ?, ?)",
                (path, *astuple(video.version), video.status, video.reason, video.problem, video.duration_seconds),
            ).lastrowid
            for clip, record, vector in zip(clips, records, pooled.astype("<f2"), strict=True):
                clip_id = execute(
                    "INSERT INTO clips (video_id, start_seconds, end_seconds, frame_seconds) VALUES (?, ?, ?, ?)",
                    (video_id, clip.start_seconds, clip.end_seconds, clip.timestamps_seconds.astype("<f8").tobytes()),
                ).lastrowid
                execute("INSERT INTO pooled VALUES (?, ?)", (clip_id, vector.tobytes()))
                execute("INSERT INTO tokens VALUES (?, ?)", (clip_id, record.tobytes()))
        if self.begins_anew:
            self.begins_anew, self._known_schema = False, self._schema()

    def remove(self, paths: Iterable[str]) -> None:
        """Forgets these videos."""
        with self._transaction() as execute:
            for path in paths:
                execute("DELETE FROM videos WHERE path = CAST(? AS TEXT)", (os.fsencode(path),))

    def clip_ids(self, where: Filter) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips whose video passes the filter."""
        condition, values = _condition(where)
        if (passing := self._passing_paths(where)) is not None:
            condition += " AND video_id IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(passing))
        rows = self._rows(f"SELECT clip_id FROM clips JOIN videos USING (video_id) WHERE {condition}", values)  # noqa: S608
        return np.sort(np.array([row[0] for row in rows], np.int64))

    def clip_ids_of(self, path: str) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips of one video."""
        rows = self._rows(
            "SELECT clip_id FROM clips JOIN videos USING (video_id) WHERE path = CAST(? AS TEXT) ORDER BY clip_id",
            (os.fsencode(path),),
        )
        return np.array([row[0] for row in rows], np.int64)

    def candidates(
        self, pooled_query: npt.NDArray[np.float32], where: Filter, k: int
    ) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """Finds the K clips (or fewer) whose pooled vectors are nearest to the query's; see `TokenStore.candidates`.

        Every vector is looked at. All stay in memory, as float32 (N, D), for as long as the index does not change.
        """
        ids, vectors = self._pooled()
        cosines = vectors @ pooled_query
        if where != EVERYTHING:
            chosen = np.isin(ids, self.clip_ids(where), assume_unique=True)
            ids, cosines = ids[chosen], cosines[chosen]
        best = top(cosines, k)
        return ids[best], cosines[best]

    def fetch_tokens(self, ids: ClipIds) -> tuple[ClipIds, PackedTokens]:
        """Returns ids (B,), ascending, and records (B,) of those of the clips that are still stored."""
        rows = self._rows(
            "SELECT clip_id, record FROM tokens WHERE clip_id IN (SELECT value FROM json_each(?)) ORDER BY clip_id",
            (json.dumps(ids.tolist()),),
        )
        return self._arrays(rows, self.layout.dtype)

    def clips(self, ids: Sequence[int]) -> list[StoredClip]:
        """Returns those of the N clips that are still stored, in the order of `ids`."""
        rows = self._rows(
            "SELECT clip_id, path, start_seconds, end_seconds, frame_seconds, duration_seconds "
            "FROM clips JOIN videos USING (video_id) WHERE clip_id IN (SELECT value FROM json_each(?))",
            (json.dumps([int(clip_id) for clip_id in ids]),),
        )
        with self._sensible():
            found = {
                row[0]: StoredClip(
                    clip_id=row[0],
                    path=os.fspath(row[1]),
                    start_seconds=float(row[2]),
                    end_seconds=float(row[3]),
                    frame_seconds=np.frombuffer(row[4], "<f8"),
                    video_seconds=None if row[5] is None else float(row[5]),
                )
                for row in rows
            }
        return [found[clip_id] for clip_id in ids if clip_id in found]

    def _passing_paths(self, where: Filter) -> list[int] | None:
        """Returns the ids of the videos whose path passes; None where no path is asked for."""
        matchers = [] if where.path_glob is None else [path_matcher(where.path_glob)]
        if where.folder is not None and (folder := PurePosixPath(where.folder).as_posix()) != ".":
            matchers.append(inside_matcher(folder))
        if not matchers:
            return None
        rows = self._rows("SELECT video_id, path FROM videos")
        with self._sensible():
            return [video_id for video_id, path in rows if all(matches(path) for matches in matchers)]

    def _pooled(self) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """Returns ids (N,) and pooled vectors (N, D) of all clips, which are kept until the index changes."""
        version = self.version()
        if self._resident is None or self._resident[0] != version:
            rows = self._rows("SELECT clip_id, vector FROM pooled ORDER BY clip_id")
            ids, half = self._arrays(rows, np.dtype(("<f2", (self.layout.width,))))
            vectors = np.empty(half.shape, np.float32)
            widen(half, vectors)
            self._resident = version, ids, vectors
        return self._resident[1:]

    def _arrays(self, rows: list[tuple[int, bytes]], dtype: np.dtype[Any]) -> tuple[ClipIds, npt.NDArray[Any]]:
        """Turns rows of ids and blobs into ids (B,) and an array of B items of `dtype`."""
        with self._sensible():
            content = b"".join([blob for _, blob in rows])
            if len(content) != len(rows) * dtype.itemsize:
                raise IndexStoreError(damaged(self.path, "tokens of a wrong size"))
            return np.array([clip_id for clip_id, _ in rows], np.int64), np.frombuffer(content, dtype)

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        """Reports the index as damaged if values read in the block have other types or sizes than those written."""
        try:
            yield
        except (TypeError, ValueError, KeyError) as exc:
            raise IndexStoreError(damaged(self.path, "values that make no sense")) from exc

    def _schema(self) -> int:
        """Returns another number after tables were made or dropped, whichever process did it."""
        return int(self._rows("PRAGMA schema_version")[0][0])

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with explained(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with explained(self.path), transaction(self._connection):
            yield self._connection.execute
        self._num_writes += 1


def _condition(where: Filter) -> tuple[str, list[Any]]:
    """Returns all but the paths of a filter as an SQL condition on `videos`, and the values of its parameters."""
    conditions: dict[str, Any] = {
        "duration_seconds >= ?": where.min_seconds,
        "duration_seconds <= ?": where.max_seconds,
        "modified_ns >= ?": _nanoseconds(where.newer_than),
        "modified_ns < ?": _nanoseconds(where.older_than),
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    return " AND ".join(given) or "1", list(given.values())


def _nanoseconds(moment: datetime | None) -> int | None:
    """Returns nanoseconds since 1970, clamped to SQLite's integers, which reach from 1677 to 2262."""
    if moment is None:
        return None
    first, last = -(2**63), 2**63 - 1
    try:
        return min(max(int(moment.timestamp() * 1e9), first), last)
    except (ValueError, OverflowError):  # the ends of the calendar, in local time
        return first if moment.year < 1970 else last
