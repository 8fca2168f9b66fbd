"""The embedded store: one SQLite file in WAL mode.

Each video is written in one transaction: a process may be killed at any moment, and any number of processes may read
while one writes. Each kind of data has a table of its own, so that a search reads only what it
needs: the pooled vectors of 100,000 clips are 50 MB, their tokens 900 MB.

All that is read is checked: each row has a checksum, and totals tell when a row is missing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.checksums import SealedType, row_checksum
from hbi_infer.index.matching import matcher
from hbi_infer.index.opening import FileState, open_file, open_to_read
from hbi_infer.index.rows import (
    CLIP_COLUMNS,
    INSERT_VIDEO,
    VIDEO_COLUMNS,
    Contents,
    VideoRow,
    clip_ids,
    stored_seconds,
)
from hbi_infer.index.sqlite_file import (
    DamagedIndexError,
    Identity,
    begin_anew,
    check_folder,
    check_model,
    explained,
    read_meta,
    snapshot,
    transaction,
    write_meta,
)
from hbi_infer.index.store import ClipIds, LedgerEntry, Move, StoredClip
from hbi_infer.index.writer_lock import sole_writer
from hbi_infer.options import EVERYTHING, VIDEOS_BY_SUFFIX, Filter, Finding
from hbi_infer.tokens.layout import PackedTokens, TokenLayout, widen
from hbi_infer.tokens.parallel import multiply_in_parts
from hbi_infer.tokens.similarity import top

if TYPE_CHECKING:
    from hbi_infer.video.decoded_video import Clip


VECTORS_A_THREAD = 20_000
"""Number of pooled vectors that are worth a thread."""

ClipTimes: TypeAlias = tuple[float, float, npt.NDArray[np.float64]]
"""Start and end of a clip and (F,) the times of its frames, in seconds."""


class SqliteStore:
    """Videos, clips and tokens of one folder, of one model, in the file `path`. Any thread may use it.

    Args:
        path: The file; an index that is there is opened, else one is made.
        identity: The model and the folder that it belongs to.
        rebuild: Whether the first video that is put takes the place of all that it holds; see `begins_anew`.
        read_only: Whether nothing is written: the file must be there, and may lie where nothing can be written.

    Attributes:
        path: The file, absolute.
        begins_anew: Whether the next `put` throws away all else, in the same transaction. Everything stays until then,
            and if another process makes the index anew first.

    Raises:
        IndexStoreError: It is of another model or folder, of a newer format, damaged, no index at all, or cannot be
            written. Every method raises it when the file cannot be read or written any more, and once it is closed.
    """

    def __init__(self, path: Path, identity: Identity, *, rebuild: bool = False, read_only: bool = False) -> None:
        self._unlocked_state: FileState | None = None
        if read_only:
            self._connection, self._unlocked_state = open_to_read(path, identity)
        else:
            self._connection = open_file(path, identity, rebuild=rebuild)
        # One connection: its transactions are those of one thread at a time, and none waits for a scan of another one.
        self._lock = threading.RLock()
        self._is_closed = False
        self._is_read_only = read_only
        self.path = path.absolute()
        self.begins_anew = rebuild
        self._identity = identity
        self._finding = VIDEOS_BY_SUFFIX
        self._records = SealedType(identity.layout.dtype)
        self._vectors = SealedType(("<f2", (identity.layout.width,)))
        self._num_writes = 0
        self._resident: tuple[tuple[int, int], ClipIds, npt.NDArray[np.float32]] | None = None
        self._known_schema = self._schema()

    @property
    def layout(self) -> TokenLayout:
        """Layout of the records that `fetch_tokens` returns."""
        return self._identity.layout

    def close(self) -> None:
        """Closes the file, once no thread reads it; the store cannot be used afterwards."""
        with self._lock:
            self._is_closed = True
            self._resident = None
            self._connection.close()

    def version(self) -> tuple[int, int]:
        """Returns another value after every change, whichever process made it; refuses tokens of another model."""
        with self._reading():
            # SQLite counts the changes of other connections only.
            version = self._rows("PRAGMA data_version")[0][0], self._num_writes
            self._contents()
        return version

    def was_made_anew(self) -> bool:
        """Returns whether another process has emptied the index since this one opened it or made it anew."""
        return self._schema() != self._known_schema

    def num_clips(self) -> int:
        """Returns the number of clips."""
        with self._reading():
            return self._contents().num_clips

    def ledger(self) -> dict[str, LedgerEntry]:
        """Returns the entry of every file that was indexed or failed to be, by path."""
        entries = [row.entry for row in self._videos()]
        return {entry.path: entry for entry in entries}

    def entry(self, path: str) -> LedgerEntry | None:
        """Returns the entry of one file; None if the ledger has none."""
        row = self._video(path)
        return row and row.entry

    def finding(self) -> Finding:
        """Returns which files of the folder are taken for videos, as it was last asked for."""
        if self.begins_anew:
            return self._finding
        with self._reading():
            known = self._meta().get("finding")
        if known is None:
            return self._finding
        asked = json.loads(known)
        return Finding(exclude=asked["exclude"], all_files=asked["all_files"])

    def remember(self, finding: Finding) -> None:
        """Keeps which files are taken for videos; an index that begins anew does so with its first video."""
        self._finding = finding
        if not self.begins_anew:
            with self._transaction():
                self._write_finding()

    def _write_finding(self) -> None:
        """Writes which files are taken for videos, within a transaction."""
        meta = read_meta(self._connection, self.path)
        asked = {"finding": json.dumps(asdict(self._finding))}
        write_meta(self._connection, meta | asked, Contents.from_text(meta["contents"]))

    @property
    def is_read_only(self) -> bool:
        """Whether nothing is written."""
        return self._is_read_only

    def background(self) -> str | None:
        """Returns the background that was kept last, as text; None if there is none."""
        with self._reading():
            return self._meta().get("background")

    def keep_background(self, text: str) -> None:
        """Keeps the background of the index, as text; it is forgotten when the index begins anew."""
        with self._transaction():
            meta = read_meta(self._connection, self.path)
            check_model(meta, self.path, self._identity)
            write_meta(self._connection, meta | {"background": text}, Contents.from_text(meta["contents"]))

    def num_clips_after(self, clip_id: int) -> int:
        """Returns the number of clips that were stored after the one with this id."""
        return int(self._rows("SELECT count(*) FROM clips WHERE clip_id > ?", (clip_id,))[0][0])

    @contextmanager
    def sole_writer(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the right to fill the index, which one process has at a time.

        Args:
            on_wait: Called once if another process has it and this one begins to wait.
        """
        self._check_writable()
        with sole_writer(self.path, on_wait):
            if self.was_made_anew():  # while this one waited: once is enough
                self.begins_anew, self._known_schema = False, self._schema()
            self._check_before_writing()
            yield

    def _check_before_writing(self) -> None:
        """Refuses an index of another model or folder, and one whose list of paths would lead to the wrong rows."""
        if self.begins_anew:
            return
        with self._reading():
            check_folder(self._connection, self._meta(), self.path, self._identity)
            by_path = "SELECT video_id, path FROM videos INDEXED BY sqlite_autoindex_videos_1"
            if self._rows(f"SELECT video_id, path FROM videos NOT INDEXED EXCEPT {by_path}"):  # noqa: S608
                raise self._damaged("paths that lead to no video")

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
                self._write_finding()
            gone = self._forget(video.path)
            row = self._new_row(video, len(clips))
            execute(INSERT_VIDEO, row)
            times = [(clip.start_seconds, clip.end_seconds, clip.timestamps_seconds) for clip in clips]
            self._put_clips(row, times, records, pooled)
            self._update_contents(gone=gone, new=[row])
        if self.begins_anew:
            self.begins_anew, self._known_schema = False, self._schema()

    def _new_row(self, video: LedgerEntry, num_clips: int) -> VideoRow:
        """Returns the row of a video that is to be stored, within a transaction."""
        video_id, first_clip = self._connection.execute(
            "SELECT (SELECT coalesce(max(video_id), 0) + 1 FROM videos), "
            "(SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'clips')"
        ).fetchone()
        return VideoRow.of(video, video_id, first_clip, num_clips, self._identity.salt)

    def _put_clips(
        self, video: VideoRow, times: Sequence[ClipTimes], records: PackedTokens, pooled: npt.NDArray[Any]
    ) -> None:
        """Stores B clips of a video: times, records (B,) and pooled vectors (B, D), within a transaction."""
        if not len(times) == len(records) == len(pooled):
            raise ValueError(f"{len(times)} clips, {len(records)} records and {len(pooled)} vectors: one is shorter")
        ids = clip_ids([video])
        rows = [
            (
                clip_id,
                video.video_id,
                stored_seconds(start),
                stored_seconds(end),
                frames.astype("<f8").tobytes(),
            )
            for clip_id, (start, end, frames) in zip(ids.tolist(), times, strict=True)
        ]
        write = self._connection.executemany
        salt = self._identity.salt
        write("INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?)", [(*row, row_checksum(row, salt)) for row in rows])
        sealed = self._vectors.seal(ids, pooled.astype("<f2"))
        write("INSERT INTO pooled VALUES (?, ?)", zip(ids.tolist(), sealed, strict=True))
        sealed = self._records.seal(ids, records)
        write("INSERT INTO tokens VALUES (?, ?)", zip(ids.tolist(), sealed, strict=True))

    def take_over(self, moves: Sequence[Move]) -> None:
        """Gives files the tokens of others, all at once, in place of what was known of their paths.

        Names may be swapped: each source is the one that bore its name before.
        """
        with self._transaction():
            sources = {source: row for source in {move.source for move in moves} for row in self._listed(source)}
            if len(sources) < len({move.source for move in moves}):
                raise self._damaged("videos are missing")
            old = [sources[move.source] for move in moves if not move.is_copy]
            new = [self._moved(move, sources[move.source]) for move in moves]
            # Under these names for a moment, which no file has; the copies have theirs already.
            execute_many = self._connection.executemany
            execute_many(
                "UPDATE videos SET path = '/' || video_id WHERE video_id = ?", [(row.video_id,) for row in old]
            )
            gone = [row for move in moves for row in self._forget(move.entry.path)]
            execute_many(
                "UPDATE videos SET path = CAST(? AS TEXT), digest = ?, status_ns = ?, checksum = ? WHERE video_id = ?",
                [(row.path, row.digest, row.status_ns, row.checksum, row.video_id) for row in new],
            )
            self._update_contents(gone=old + gone, new=new)

    def _moved(self, move: Move, source: VideoRow) -> VideoRow:
        """Returns the row of a file that takes over the tokens of another one; a copy is stored without its name."""
        if not move.is_copy:
            return VideoRow.of(move.entry, source.video_id, source.first_clip, source.num_clips, self._identity.salt)
        row = self._new_row(move.entry, source.num_clips)
        self._connection.execute(INSERT_VIDEO, row._replace(path=b"/%d" % row.video_id))
        ids = clip_ids([source])
        times = [(clip.start_seconds, clip.end_seconds, clip.frame_seconds) for clip in self.clips(ids.tolist())]
        vectors = self._rows(
            "SELECT clip_id, vector FROM pooled WHERE clip_id IN (SELECT value FROM json_each(?)) ORDER BY clip_id",
            (json.dumps(ids.tolist()),),
        )
        pooled = self._unsealed(vectors, self._vectors)[1]
        records = self.fetch_tokens(ids)[1]
        if not len(times) == len(records) == len(pooled) == source.num_clips:
            raise self._damaged("clips are missing")
        self._put_clips(row, times, records, pooled)
        return row

    def put_marks(self, videos: Iterable[LedgerEntry]) -> None:
        """Keeps the marks of those of the videos that are still stored as these entries say, but for the marks."""
        with self._transaction() as execute:
            old, new = [], []
            for video in videos:
                for row in self._listed(video.path):
                    if replace(row.entry, mark=video.mark) == video:
                        old.append(row)
                        new.append(VideoRow.of(video, row.video_id, row.first_clip, row.num_clips, self._identity.salt))
            for row in new:
                execute(
                    "UPDATE videos SET digest = ?, status_ns = ?, checksum = ? WHERE video_id = ?",
                    (row.digest, row.status_ns, row.checksum, row.video_id),
                )
            self._update_contents(gone=old, new=new)

    def remove(self, paths: Iterable[str]) -> None:
        """Forgets these videos."""
        with self._transaction():
            self._update_contents(gone=[row for path in paths for row in self._forget(path)], new=[])

    def _forget(self, path: str) -> list[VideoRow]:
        """Deletes a video, within a transaction; returns its row, or none."""
        rows = self._listed(path)
        for row in rows:
            self._connection.execute("DELETE FROM videos WHERE video_id = ?", (row.video_id,))
        return rows

    def _update_contents(self, *, gone: Collection[VideoRow], new: Collection[VideoRow]) -> None:
        """Brings the totals up to date, within a transaction."""
        meta = read_meta(self._connection, self.path)
        write_meta(self._connection, meta, Contents.from_text(meta["contents"]).changed(gone=gone, new=new))

    def clip_ids(self, where: Filter) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips whose video passes the filter."""
        rows = self._videos()
        if where != EVERYTHING:
            passes = matcher(where)
            rows = [row for row in rows if passes(os.fsdecode(row.path), row.seconds, int(row.modified_ns))]
        return clip_ids(rows)

    def clip_ids_of(self, path: str) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips of one video."""
        row = self._video(path)
        return clip_ids([row] if row else [])

    def candidates(
        self, pooled_query: npt.NDArray[np.float32], where: Filter, k: int
    ) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """Finds the K clips (or fewer) whose pooled vectors are nearest to the query's; see `TokenStore.candidates`.

        Every vector is looked at. All stay in memory, as float32 (N, D), for as long as the index does not change.
        """
        ids, vectors = self._pooled()
        cosines = np.empty(len(vectors), np.float32)
        multiply_in_parts(vectors, pooled_query, cosines, at_least=VECTORS_A_THREAD)
        if where != EVERYTHING:
            chosen = np.isin(ids, self.clip_ids(where), assume_unique=True)
            ids, cosines = ids[chosen], cosines[chosen]
        best = top(cosines, k)
        return ids[best], cosines[best]

    def fetch_tokens(self, ids: ClipIds) -> tuple[ClipIds, PackedTokens]:
        """Returns ids (B,), ascending, and records (B,) of those of the clips that are still stored."""
        with self._reading():
            rows = self._rows(
                "SELECT clip_id, record FROM tokens WHERE clip_id IN (SELECT value FROM json_each(?)) ORDER BY clip_id",
                (json.dumps(ids.tolist()),),
            )
            if len(rows) < len(ids):
                self._check_gone(set(ids.tolist()) - {clip_id for clip_id, _ in rows}, "clips")
        return self._unsealed(rows, self._records)

    def clips(self, ids: Sequence[int]) -> list[StoredClip]:
        """Returns those of the N clips that are still stored, in the order of `ids`."""
        with self._reading():
            rows = self._rows(
                f"SELECT {CLIP_COLUMNS}, checksum FROM clips WHERE clip_id IN (SELECT value FROM json_each(?))",  # noqa: S608
                (json.dumps([int(clip_id) for clip_id in ids]),),
            )
            if not all(row_checksum(row[:-1], self._identity.salt) == row[-1] for row in rows):
                raise self._damaged("values that make no sense")
            if len(rows) < len(ids):
                self._check_gone({int(clip_id) for clip_id in ids} - {row[0] for row in rows}, "tokens")
            owners = json.dumps(sorted({row[1] for row in rows}))
            videos = self._select_videos("video_id IN (SELECT value FROM json_each(?))", owners)
        named = {video.video_id: (os.fsdecode(video.path), video.seconds) for video in videos}
        found = {}
        for clip_id, video_id, start, end, frames, _ in rows:
            if video_id not in named:
                raise self._damaged("clips that belong to no video")
            path, seconds = named[video_id]
            found[clip_id] = StoredClip(
                clip_id=clip_id,
                path=path,
                start_seconds=start,
                end_seconds=end,
                frame_seconds=np.frombuffer(frames, "<f8"),
                video_seconds=seconds,
            )
        return [found[clip_id] for clip_id in ids if clip_id in found]

    def _pooled(self) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """Returns ids (N,) and pooled vectors (N, D) of all clips, which are kept until the index changes."""
        with self._reading():
            version = self.version()
            if self._resident is None or self._resident[0] != version:
                contents = self._contents()
                rows = self._rows("SELECT clip_id, vector FROM pooled ORDER BY clip_id")
                ids, half = self._unsealed(rows, self._vectors)
                if (len(ids), int(ids.sum())) != (contents.num_clips, contents.clip_ids):
                    raise self._damaged("clips are missing")
                vectors = np.empty(half.shape, np.float32)
                widen(half, vectors)
                self._resident = version, ids, vectors
            return self._resident[1:]

    def _unsealed(self, rows: list[tuple[int, bytes]], items: SealedType) -> tuple[ClipIds, npt.NDArray[Any]]:
        """Turns rows of ids and sealed items into ids (B,) and an array of B items."""
        try:
            ids = np.array([clip_id for clip_id, _ in rows], np.int64)
            return ids, items.unseal(ids, b"".join([sealed for _, sealed in rows]))
        except (TypeError, ValueError) as exc:
            raise self._damaged("tokens that make no sense") from exc

    def _videos(self) -> list[VideoRow]:
        """Returns the row of every video."""
        with self._reading():
            contents = self._contents()
            rows = self._select_videos()
        if Contents.of(rows) != contents:
            raise self._damaged("videos are missing")
        return rows

    def _video(self, path: str) -> VideoRow | None:
        """Returns the row of one video; None if there is none."""
        with self._reading():
            # The list of paths may be damaged: not to be found there is not enough.
            rows = self._listed(path) or [row for row in self._videos() if row.path == os.fsencode(path)]
        return rows[0] if rows else None

    def _listed(self, path: str) -> list[VideoRow]:
        """Returns the rows of one video, which are one or none, as the list of paths has it."""
        encoded = os.fsencode(path)
        rows = self._select_videos("path = CAST(? AS TEXT)", encoded)
        if not all(row.path == encoded for row in rows):
            raise self._damaged("paths that lead to other videos")
        return rows

    def _select_videos(self, condition: str = "1", *values: Any) -> list[VideoRow]:
        rows = self._rows(f"SELECT {VIDEO_COLUMNS}, checksum FROM videos WHERE {condition}", values)  # noqa: S608
        videos = [VideoRow._make(row) for row in rows]
        if not all(video.is_sound(self._identity.salt) for video in videos):
            raise self._damaged("names or values that make no sense")
        return videos

    def _check_gone(self, ids: set[int], table: str) -> None:
        """Refuses clips that are missing in one table and not in another; else they were removed meanwhile."""
        sql = f"SELECT count(*) FROM {table} WHERE clip_id IN (SELECT value FROM json_each(?))"  # noqa: S608
        if self._rows(sql, (json.dumps(sorted(ids)),))[0][0]:
            raise self._damaged("tokens that make no sense" if table == "clips" else "clips are missing")

    def _contents(self) -> Contents:
        return Contents.from_text(self._meta()["contents"])

    def _meta(self) -> dict[str, str]:
        """Returns what the index says of itself; refuses tokens of another model."""
        self._check_usable()
        if self._unlocked_state not in (None, FileState.of(self.path)):
            raise IndexStoreError(f"another process has written the index {self.path} meanwhile: open it again")
        with explained(self.path):
            meta = read_meta(self._connection, self.path)
        check_model(meta, self.path, self._identity)
        return meta

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(self.path, what)

    def _schema(self) -> int:
        """Returns another number after tables were made or dropped, whichever process did it."""
        return int(self._rows("PRAGMA schema_version")[0][0])

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, explained(self.path):
            self._check_usable()
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Keeps other threads out, and makes the block see one state of the index."""
        with self._lock, explained(self.path):
            self._check_usable()
            with snapshot(self._connection):
                yield

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._lock, explained(self.path):
            self._check_usable()
            self._check_writable()
            with transaction(self._connection):
                yield self._connection.execute
            self._num_writes += 1

    def _check_writable(self) -> None:
        if self._is_read_only:
            raise IndexStoreError(f"the index {self.path} was opened only to be read: open it to be written")

    def _check_usable(self) -> None:
        if self._is_closed:
            raise IndexStoreError(f"the index {self.path} is closed: open it again")
