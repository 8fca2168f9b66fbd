"""The file of the embedded store: its tables, what it says of itself, its transactions; SQLite's errors explained."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hbi_infer.errors import IndexStoreError
from hbi_infer.files import exists
from hbi_infer.index.checksums import row_checksum
from hbi_infer.index.rows import Contents
from hbi_infer.index.store import FileVersion
from hbi_infer.tokens.layout import TokenLayout

FORMAT_VERSION = 4
APPLICATION_ID = int.from_bytes(b"HBIx", "big")
"""Mark in the file's header: no other program's database is taken for an index, or replaced by one."""

BUSY_SECONDS = 30.0
"""Longest wait of a statement for another process's transaction, which lasts milliseconds."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE videos (
    video_id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    problem TEXT,
    duration_seconds REAL,
    first_clip INTEGER NOT NULL,
    num_clips INTEGER NOT NULL,
    digest BLOB,
    status_ns INTEGER,
    checksum INTEGER NOT NULL
);
CREATE TABLE clips (
    clip_id INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE,
    start_seconds REAL NOT NULL,
    end_seconds REAL NOT NULL,
    frame_seconds BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX clips_by_video ON clips (video_id);
CREATE TABLE pooled (clip_id INTEGER PRIMARY KEY REFERENCES clips ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE tokens (clip_id INTEGER PRIMARY KEY REFERENCES clips ON DELETE CASCADE, record BLOB NOT NULL);
"""


class DamagedIndexError(IndexStoreError):
    """An index that makes no sense any more.

    Args:
        path: The index's file.
        fault: Name of the fault.

    Attributes:
        fault: Name of the fault.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(
            f"the index {path} is damaged ({fault}): make it anew with --rebuild; the videos are not touched. "
            "hbi-infer index --verify indexes anew only what is damaged"
        )
        self.fault = fault


@dataclass(frozen=True)
class Identity:
    """The model and the folder that an index belongs to.

    Attributes:
        bundle_sha256: Hash of the model that made the tokens.
        layout: Layout of its tokens.
        folder: Folder of the videos.
    """

    bundle_sha256: str
    layout: TokenLayout
    folder: Path

    def meta(self) -> dict[str, str]:
        """Returns the rows of the table `meta` that say what the index is of."""
        layout = json.dumps([self.layout.width, self.layout.levels, self.layout.merged])
        return {"bundle_sha256": self.bundle_sha256, "layout": layout, "folder": str(self.folder)}

    @cached_property
    def salt(self) -> int:
        """Start of the checksums of rows, which are right for no other model."""
        meta = self.meta()
        return row_checksum((meta["bundle_sha256"], meta["layout"]))


@contextmanager
def explained(path: Path, use: Literal["opened for writing", "read"] = "opened for writing") -> Iterator[None]:
    """Turns SQLite's errors into an `IndexStoreError` that says what to do.

    Args:
        path: The index's file.
        use: Least use that the file is needed for.
    """
    try:
        yield
    except sqlite3.ProgrammingError:  # a bug, such as the use of a closed index
        raise
    except UnicodeDecodeError as exc:  # SQLite's message quotes a schema that is no text any more
        raise DamagedIndexError(path, "its schema is no text") from exc
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the low byte tells the kind
        match code:
            case sqlite3.SQLITE_FULL:
                message = (
                    f"no space left for the index {path}: free some, or choose another place with --index. "
                    "What was indexed before is kept"
                )
            case sqlite3.SQLITE_IOERR:
                message = (
                    f"the index {path} could not be read or written ({exc}): see whether the disk is full or failing, "
                    "or choose another place with --index. What was indexed before is kept"
                )
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                message = f"another process kept the index {path} locked for {BUSY_SECONDS:.0f} s: try again later"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                message = cannot_be_used(path, use, str(exc))
            case _:
                raise DamagedIndexError(path, str(exc)) from exc
        raise IndexStoreError(message) from exc


def cannot_be_used(path: Path, use: str, reason: str) -> str:
    """Returns the message for an index whose permissions or place do not allow its use."""
    instead = "" if use == "read" else ", or search what it holds with --no-update"
    return (
        f"the index {path} cannot be {use} ({reason}): mend its permissions, or choose another place with --index"
        + instead
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Makes the block one transaction: all of it is written or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors, a full disk among them, SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Makes the block see one state of the index, whatever other processes write meanwhile."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def connect(file: Path | str) -> sqlite3.Connection:
    """Connects to a file or a `file:` address. Threads may share the connection, one at a time."""
    connection = sqlite3.connect(
        file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=isinstance(file, str)
    )
    connection.text_factory = os.fsdecode  # a file's name need not be UTF-8
    return connection


def begin_anew(connection: sqlite3.Connection, identity: Identity) -> None:
    """Replaces all that the index holds by empty tables, within a transaction.

    The file stays the same: another process may have it open, and would delete a new file's WAL when it ends.
    """
    # The youngest first: to drop a table that others refer to, SQLite deletes row by row.
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid DESC").fetchall()
    names = [name for (name,) in rows if not name.startswith("sqlite_")]
    last_ids = []
    if ("sqlite_sequence",) in rows:  # dropping `clips` forgets the last id, and no id is used for another clip
        last_ids = connection.execute("SELECT name, seq FROM sqlite_sequence WHERE name = 'clips'").fetchall()
    for name in names:
        connection.execute(f'DROP TABLE "{name}"')
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", last_ids)
    write_meta(connection, identity.meta(), Contents())
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def check_format(connection: sqlite3.Connection, path: Path) -> int:
    """Returns the format of the index.

    Raises:
        IndexStoreError: The format is newer than any that is known, or none.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version < 1:
        raise DamagedIndexError(path, "it does not say its format")
    if version > FORMAT_VERSION:
        raise IndexStoreError(
            f"the index {path} has format {version} and this hbi-infer reads up to {FORMAT_VERSION}: "
            "pip install --upgrade hbi-infer, or make the index anew with --rebuild"
        )
    return version


def check_model(meta: Mapping[str, str], path: Path, identity: Identity) -> None:
    """Refuses tokens of another model.

    Raises:
        IndexStoreError: The index holds tokens of another model.
    """
    expected = identity.meta()
    if (meta["bundle_sha256"], meta["layout"]) != (expected["bundle_sha256"], expected["layout"]):
        raise IndexStoreError(
            f"the index {path} was made with another model (bundle {meta['bundle_sha256'][:12]}, this one is "
            f"{identity.bundle_sha256[:12]}): use that model, choose another --index, or make it anew with --rebuild"
        )


def check_folder(connection: sqlite3.Connection, meta: Mapping[str, str], path: Path, identity: Identity) -> None:
    """Refuses an index of another folder, whose videos would seem to be gone, unless the folder was moved.

    Raises:
        IndexStoreError: The index is of another folder.
    """
    known = meta["folder"]
    if known != str(identity.folder) and (exists(Path(known)) or not _holds_any(identity.folder, connection)):
        raise IndexStoreError(
            f"the index {path} is of the folder {known}, not of {identity.folder}: choose another --index, "
            "or make it anew with --rebuild"
        )


def _holds_any(folder: Path, connection: sqlite3.Connection) -> bool:
    """Returns whether an indexed file lies in the folder unchanged, or none was indexed. A drive may be unmounted."""
    rows = connection.execute("SELECT path, size_bytes, modified_ns FROM videos").fetchall()
    return not rows or any(FileVersion.of(folder / path) == FileVersion(*map(int, version)) for path, *version in rows)


def read_meta(connection: sqlite3.Connection, path: Path, *, has_checksum: bool = True) -> dict[str, str]:
    """Returns the rows of the table `meta`: what the index is of, and, as text, its `Contents`.

    Args:
        connection: Connection to the index.
        path: The index's file.
        has_checksum: Whether there is a checksum, as there is since format 3.

    Raises:
        DamagedIndexError: A row is missing or has changed.
    """
    found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not found.keys() >= {"bundle_sha256", "layout", "folder"}:
        raise DamagedIndexError(path, "it does not say what it is of")
    if has_checksum and found.pop("checksum", None) != _meta_checksum(found):
        raise DamagedIndexError(path, "what it says of itself has changed")
    return found


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str], contents: Contents) -> None:
    """Replaces the table `meta`, within a transaction."""
    rows = {**meta, "contents": contents.to_text()}
    connection.execute("DELETE FROM meta")
    connection.executemany(
        "INSERT INTO meta VALUES (?, CAST(? AS TEXT))",
        [(key, os.fsencode(value)) for key, value in {**rows, "checksum": _meta_checksum(rows)}.items()],
    )


def _meta_checksum(meta: Mapping[str, str]) -> str:
    return str(row_checksum(tuple(sorted(map(ascii, meta.items())))))
