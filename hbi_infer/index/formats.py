"""Older formats of the embedded store: brought up to date in place, or read as they are where nothing can be written.

Format 2 told the kinds of problems apart. Format 3 has a checksum for each row, names the clips of a video in its row,
and keeps totals. Format 4 has a mark of each file's content, which is read when the file is next seen unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.index.checksums import SealedType, row_checksum
from hbi_infer.index.rows import CLIP_COLUMNS, Contents, VideoRow
from hbi_infer.index.sqlite_file import (
    FORMAT_VERSION,
    DamagedIndexError,
    Identity,
    read_meta,
    transaction,
    write_meta,
)
from hbi_infer.tokens.layout import is_finite

PROBLEMS = """
ALTER TABLE videos ADD COLUMN problem TEXT;
UPDATE videos SET problem = CASE
    WHEN reason LIKE 'cannot be opened%' THEN 'not_opened'
    WHEN reason LIKE 'took longer than%' THEN 'too_slow'
    WHEN reason LIKE 'crashed the decoder%' THEN 'crashed'
    WHEN reason LIKE 'makes the model give%' THEN 'not_finite'
    ELSE 'damaged'
END WHERE status <> 'ok'
"""
"""Statements from format 1 to format 2."""

VIDEO_COLUMNS = (
    "video_id, CAST(path AS BLOB), size_bytes, modified_ns, CAST(status AS BLOB), CAST(reason AS BLOB), "
    "CAST(problem AS BLOB), duration_seconds, first_clip, num_clips"
)
"""Columns that the checksum of a video was made of in format 3."""

CHECKSUMS = f"""
ALTER TABLE videos ADD COLUMN first_clip INTEGER NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN num_clips INTEGER NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE clips ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE clips SET checksum = row_checksum({CLIP_COLUMNS});
UPDATE videos SET first_clip = found.first, num_clips = found.number
    FROM (SELECT video_id AS owner, min(clip_id) AS first, count(*) AS number FROM clips GROUP BY video_id) AS found
    WHERE video_id = found.owner;
UPDATE videos SET checksum = row_checksum({VIDEO_COLUMNS})
"""  # noqa: S608
"""Statements from format 2 to format 3, without the large tables."""

MARKS = """
ALTER TABLE videos ADD COLUMN digest BLOB;
ALTER TABLE videos ADD COLUMN status_ns INTEGER
"""
"""Statements from format 3 to format 4."""

SEALS = """
UPDATE pooled SET vector = sealed_vector(clip_id, vector);
UPDATE tokens SET record = sealed_record(clip_id, record)
"""

COPIES = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE meta AS SELECT * FROM main.meta;
CREATE TEMP TABLE videos AS SELECT * FROM main.videos
"""
"""Statements that put copies of small tables, in memory, in front of those of the file."""

COPIES_AND_SEALS = """
CREATE TEMP TABLE clips AS SELECT * FROM main.clips;
CREATE INDEX temp.clips_by_id ON clips (clip_id);
CREATE TEMP VIEW pooled AS SELECT clip_id, sealed_vector(clip_id, vector) AS vector FROM main.pooled;
CREATE TEMP VIEW tokens AS SELECT clip_id, sealed_record(clip_id, record) AS record FROM main.tokens
"""
"""Statements that put another table in memory, and views of the large ones, in front of those of the file."""


def bring_up_to_date(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Brings an index of an older format up to date, in one transaction; its videos stay indexed.

    Raises:
        DamagedIndexError: Its rows do not belong together.
    """
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < FORMAT_VERSION:  # else another process was quicker
            if version < 3:
                _add_checksums(connection, path, identity, version)
                _execute(connection, SEALS)
            _add_marks(connection, path, identity)
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def read_as_newest(connection: sqlite3.Connection, path: Path, identity: Identity, version: int) -> None:
    """Lets an index of an older format be read as one of the newest, through this connection, and writes nothing.

    Raises:
        DamagedIndexError: Its rows do not belong together.
    """
    _execute(connection, COPIES)
    if version < 3:
        _add_functions(connection, identity)
        _execute(connection, COPIES_AND_SEALS)
        _add_checksums(connection, path, identity, version)
    _add_marks(connection, path, identity)


def _add_checksums(connection: sqlite3.Connection, path: Path, identity: Identity, version: int) -> None:
    _add_functions(connection, identity)
    if version < 2:
        _execute(connection, PROBLEMS)
    _execute(connection, CHECKSUMS)
    contents = Contents.of(_rows_of_format_3(connection))
    for table in ("clips", "pooled", "tokens"):
        found = connection.execute(f"SELECT count(*), coalesce(sum(clip_id), 0) FROM {table}").fetchone()  # noqa: S608
        if found != (contents.num_clips, contents.clip_ids):
            raise DamagedIndexError(path, "clips that belong to no video")
    write_meta(connection, read_meta(connection, path, has_checksum=False), contents)


def _add_marks(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Adds the marks, which nobody knows yet. A damaged row, and totals that are wrong, stay so, to be found."""
    salt = identity.salt
    old = [row for row in _rows_of_format_3(connection) if row_checksum(row[:10], salt) == row.checksum]
    new = [row._replace(checksum=row_checksum(row[:-1], salt)) for row in old]
    _execute(connection, MARKS)
    connection.executemany("UPDATE videos SET checksum = ? WHERE video_id = ?", [(row[-1], row[0]) for row in new])
    meta = read_meta(connection, path)
    write_meta(connection, meta, Contents.from_text(meta["contents"]).changed(gone=old, new=new))


def _rows_of_format_3(connection: sqlite3.Connection) -> list[VideoRow]:
    rows = connection.execute(f"SELECT {VIDEO_COLUMNS}, checksum FROM videos").fetchall()  # noqa: S608
    return [VideoRow._make((*row[:-1], None, None, row[-1])) for row in rows]


def _add_functions(connection: sqlite3.Connection, identity: Identity) -> None:
    layout = identity.layout
    connection.create_function("row_checksum", -1, lambda *row: row_checksum(row, identity.salt))
    connection.create_function("sealed_vector", 2, _sealing(np.dtype(("<f2", (layout.width,))), np.isfinite))
    connection.create_function("sealed_record", 2, _sealing(layout.dtype, is_finite))


def _sealing(dtype: np.dtype[Any], is_sound: Callable[[npt.NDArray[Any]], Any]) -> Callable[[int, bytes], bytes]:
    """Returns a function that seals one item of an id; it refuses one of a wrong size or that is not sound."""
    seals = SealedType(dtype)
    row = np.dtype([("item", dtype)])

    def sealed(clip_id: int, item: bytes) -> bytes:
        items = np.frombuffer(item, row)["item"]
        if len(items) != 1 or not np.all(is_sound(items)):
            raise ValueError("an item that makes no sense")
        return seals.seal(np.array([clip_id]), items)[0]

    return sealed


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        connection.execute(statement)
