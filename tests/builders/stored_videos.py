"""Made-up videos to put into a store."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.index.checksums import row_checksum
from hbi_infer.index.rows import VIDEO_COLUMNS, Contents, VideoRow
from hbi_infer.index.sqlite_file import APPLICATION_ID, Identity, write_meta
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import FileVersion, LedgerEntry
from hbi_infer.options import EVERYTHING, Filter
from hbi_infer.tokens.layout import PackedTokens, TokenLayout
from hbi_infer.tokens.levels import LevelTokens, pooled
from hbi_infer.video.decoded_video import Clip

LAYOUT = TokenLayout((("entity", 3), ("event", 1)), 8, merged=("event",))


@dataclass(frozen=True)
class Video:
    """What `put` takes."""

    record: LedgerEntry
    clips: list[Clip]
    tokens: PackedTokens
    vectors: npt.NDArray[np.float32]


def video(path: str, num_clips: int = 2, *, seed: int = 0, **record: object) -> Video:
    rng = np.random.default_rng(seed)
    levels = {
        name: LevelTokens(
            rng.standard_normal((num_clips, size, LAYOUT.width)).astype(np.float32),
            np.full((num_clips, size), 1 / size, np.float32),
            np.tile([0, 0, -1], (num_clips, 1)) if name in LAYOUT.merged else None,
        )
        for name, size in LAYOUT.levels
    }
    times = np.array([0.0, 1.0, np.nan])
    clips = [
        Clip(
            start_seconds=2.0 * i,
            end_seconds=2.0 * i + 2,
            frames=np.zeros((3, 1, 1, 3), np.uint8),
            timestamps_seconds=times + 2 * i,
            mask=np.array([True, True, False]),
        )
        for i in range(num_clips)
    ]
    line = replace(LedgerEntry(path=path, version=FileVersion(10, 20)), **record)  # type: ignore[arg-type]
    return Video(line, clips, LAYOUT.pack(levels), pooled(levels, dict.fromkeys(levels, 1.0)))


def put(store: SqliteStore, *videos: Video) -> None:
    for item in videos:
        store.put(item.record, item.clips, item.tokens, item.vectors)


def paths(store: SqliteStore, where: Filter = EVERYTHING) -> set[str]:
    return {clip.path for clip in store.clips(store.clip_ids(where).tolist())}


def content(store: SqliteStore) -> dict[str, Any]:
    """All that a store says of each video, except for the numbers of its rows."""
    ids = store.clip_ids(EVERYTHING)
    found, records = store.fetch_tokens(ids)
    near, cosines = store.candidates(np.ones(LAYOUT.width, np.float32), EVERYTHING, len(ids))
    assert (found == ids).all()
    assert sorted(near.tolist()) == ids.tolist()
    cosine_of = dict(zip(near.tolist(), cosines.tolist(), strict=True))
    clips: dict[str, list[Any]] = {path: [] for path in store.ledger()}
    for clip, record in zip(store.clips(ids.tolist()), records, strict=True):
        times = clip.start_seconds, clip.end_seconds, clip.frame_seconds.tobytes(), clip.video_seconds
        clips[clip.path].append((*times, record.tobytes(), cosine_of[clip.clip_id]))
    assert all(len(store.clip_ids_of(path)) == len(clips[path]) for path in clips)
    return {path: (entry, clips[path]) for path, entry in store.ledger().items()}


OLD_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE videos (
    video_id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    {problem}
    duration_seconds REAL
);
CREATE TABLE clips (
    clip_id INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
    start_seconds REAL NOT NULL,
    end_seconds REAL NOT NULL,
    frame_seconds BLOB NOT NULL
);
CREATE INDEX clips_by_video ON clips (video_id);
CREATE TABLE pooled (clip_id INTEGER PRIMARY KEY REFERENCES clips ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE tokens (clip_id INTEGER PRIMARY KEY REFERENCES clips ON DELETE CASCADE, record BLOB NOT NULL);
PRAGMA application_id = {mark};
PRAGMA user_version = {version};
PRAGMA journal_mode = WAL;
"""


def write_index_of_format_3(path: Path, identity: Identity, *videos: Video) -> None:
    """Writes an index as format 3 had it: without marks, in the table and in the checksums."""
    with closing(SqliteStore(path, identity)) as store:
        put(store, *videos)
    columns = VIDEO_COLUMNS.removesuffix(", digest, status_ns")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE videos DROP COLUMN digest")
        connection.execute("ALTER TABLE videos DROP COLUMN status_ns")
        connection.create_function("row_checksum", -1, lambda *row: row_checksum(row, identity.salt))
        connection.execute(f"UPDATE videos SET checksum = row_checksum({columns})")
        rows = [
            VideoRow(*row[:-1], None, None, row[-1])
            for row in connection.execute(f"SELECT {columns}, checksum FROM videos")
        ]
        write_meta(connection, identity.meta(), Contents.of(rows))
        connection.execute("PRAGMA user_version = 3")


def write_old_index(path: Path, identity: Identity, version: int, *videos: Video) -> None:
    """Writes an index as format 1, 2 or 3 had it."""
    if version == 3:
        write_index_of_format_3(path, identity, *videos)
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        problem = "problem TEXT," if version > 1 else ""
        connection.executescript(OLD_SCHEMA.format(problem=problem, mark=APPLICATION_ID, version=version))
        connection.executemany(
            "INSERT INTO meta VALUES (?, CAST(? AS TEXT))",
            [(key, os.fsencode(value)) for key, value in identity.meta().items()],
        )
        for video in videos:
            _put_old(connection, version, video)


def _put_old(connection: sqlite3.Connection, version: int, video: Video) -> None:
    entry, size = video.record, video.record.version
    problem = [entry.problem] if version > 1 else []
    video_id = connection.execute(
        f"INSERT INTO videos VALUES (NULL, CAST(? AS TEXT), ?, ?, ?, ?, {'?, ' * len(problem)}?)",
        (
            os.fsencode(entry.path),
            size.size_bytes,
            size.modified_ns,
            entry.status,
            entry.reason,
            *problem,
            entry.duration_seconds,
        ),
    ).lastrowid
    for clip, record, vector in zip(video.clips, video.tokens, video.vectors.astype("<f2"), strict=True):
        times = clip.start_seconds, clip.end_seconds, clip.timestamps_seconds.astype("<f8").tobytes()
        clip_id = connection.execute("INSERT INTO clips VALUES (NULL, ?, ?, ?, ?)", (video_id, *times)).lastrowid
        connection.execute("INSERT INTO pooled VALUES (?, ?)", (clip_id, vector.tobytes()))
        connection.execute("INSERT INTO tokens VALUES (?, ?)", (clip_id, record.tobytes()))
