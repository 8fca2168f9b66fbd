"""The file of the embedded store: made, opened, checked, locked and begun anew; SQLite's errors in plain words."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hbi_infer.errors import IndexStoreError
from hbi_infer.files import exists
from hbi_infer.index.store import FileVersion
from hbi_infer.tokens.layout import TokenLayout

FORMAT_VERSION = 2
APPLICATION_ID = int.from_bytes(b"HBIx", "big")
"""Mark in the file's header: no other program's database is taken for an index, or replaced by one."""

BUSY_SECONDS = 30.0
"""Longest wait of a statement for another process's transaction, which lasts milliseconds."""

LOCK_POLL_SECONDS = 0.1

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
"""

TO_FORMAT_2 = """
ALTER TABLE videos ADD COLUMN problem TEXT;
UPDATE videos SET problem = CASE
    WHEN reason LIKE 'cannot be opened%' THEN 'not_opened'
    WHEN reason LIKE 'took longer than%' THEN 'too_slow'
    WHEN reason LIKE 'crashed the decoder%' THEN 'crashed'
    WHEN reason LIKE 'makes the model give%' THEN 'not_finite'
    ELSE 'damaged'
END WHERE status <> 'ok';
PRAGMA user_version = 2
"""
"""Statements that bring an index of format 1 to format 2, which tells the kinds of problems apart."""


class DamagedIndexError(IndexStoreError):
    """An index that makes no sense any more."""


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
        """Returns the rows of the table `meta`."""
        layout = json.dumps([self.layout.width, self.layout.levels, self.layout.merged])
        return {"bundle_sha256": self.bundle_sha256, "layout": layout, "folder": str(self.folder)}


def open_file(path: Path, identity: Identity, *, rebuild: bool) -> sqlite3.Connection:
    """Opens the index at `path`, or makes one.

    Args:
        path: The index's file.
        identity: The model and the folder that the index must belong to.
        rebuild: Whether it is opened only for `begin_anew`: it may then belong to any model, folder and format, and one
            that is too damaged even for that is deleted.

    Raises:
        IndexStoreError: It is of another model or folder, of a newer format, damaged, no index at all, or cannot be
            written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise IndexStoreError(
            f"cannot make the folder {path.parent} for the index ({exc.strerror}); choose another place with --index"
        ) from exc
    with explained(path):
        if rebuild:
            _delete_if_unsound(path)
        connection = _connect(path)
        try:
            if _is_empty(connection, path):
                with sole_writer(path):
                    _create(connection, path, identity)
            if not rebuild:
                _check_format(connection, path)
                _update_format(connection)
                check_folder(connection, path, identity)
                check_model(connection, path, identity)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into an `IndexStoreError` that says what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a bug, such as the use of a closed index
        raise
    except UnicodeDecodeError as exc:  # SQLite's message quotes a schema that is no text any more
        raise DamagedIndexError(damaged(path, "its schema is no text")) from exc
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
                message = (
                    f"the index {path} cannot be opened for writing ({exc}): mend its permissions, or choose another "
                    "place with --index"
                )
            case _:
                raise DamagedIndexError(damaged(path, str(exc))) from exc
        raise IndexStoreError(message) from exc


def damaged(path: Path, what: str) -> str:
    """Returns the message for an index that cannot be used any more."""
    return f"the index {path} is damaged ({what}): make it anew with --rebuild; the videos are not touched"


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
def sole_writer(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the right to fill the index, which one process has at a time. The right ends with the process.

    It is the lock of an empty database beside the index, so that the index itself stays free for short transactions.

    Args:
        path: The index's file.
        on_wait: Called once if another process has the right and this one begins to wait.
    """
    with explained(path):
        lock = sqlite3.connect(path.with_name(path.name + ".lock"), timeout=0, isolation_level=None)
    with closing(lock):
        with explained(path):
            waiting = False
            while not _locked(lock):
                if not waiting and on_wait is not None:
                    on_wait()
                waiting = True
                time.sleep(LOCK_POLL_SECONDS)
        yield


def _locked(lock: sqlite3.Connection) -> bool:
    """Tries to take the lock; returns whether it was free."""
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.text_factory = os.fsdecode  # a file's name need not be UTF-8
    connection.execute("PRAGMA foreign_keys = ON")
    # With WAL, a crash of the machine can lose the last videos, which are then indexed again, but harms no file.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _is_empty(connection: sqlite3.Connection, path: Path) -> bool:
    """Returns whether the tables have yet to be made; refuses a database of another program."""
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
        return bool(connection.execute("PRAGMA user_version").fetchone()[0] == 0)
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise IndexStoreError(f"{path} is a database of another program, not an index; choose another --index")
    return True


def _create(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    if not _is_empty(connection, path):  # another process was quicker
        return
    # The mark first, while there is no WAL yet: `_delete_if_unsound` reads it from the file itself.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):
        begin_anew(connection, identity)


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
    for key, value in identity.meta().items():
        connection.execute("INSERT INTO meta VALUES (?, CAST(? AS TEXT))", (key, os.fsencode(value)))
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT_VERSION:
        raise IndexStoreError(
            f"the index {path} has format {version} and this hbi-infer reads up to {FORMAT_VERSION}: "
            "pip install --upgrade hbi-infer, or make the index anew with --rebuild"
        )


def _update_format(connection: sqlite3.Connection) -> None:
    """Brings an index of an older format up to date; its videos stay indexed."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT_VERSION:
        return
    with transaction(connection):
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:  # else another process was quicker
            for statement in TO_FORMAT_2.split(";"):
                connection.execute(statement)


def check_model(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Refuses tokens of another model.

    Raises:
        IndexStoreError: The index holds tokens of another model.
    """
    found, expected = _meta(connection, path), identity.meta()
    if (found["bundle_sha256"], found["layout"]) != (expected["bundle_sha256"], expected["layout"]):
        raise IndexStoreError(
            f"the index {path} was made with another model (bundle {found['bundle_sha256'][:12]}, this one is "
            f"{identity.bundle_sha256[:12]}): use that model, choose another --index, or make it anew with --rebuild"
        )


def check_folder(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Refuses an index of another folder, whose videos would seem to be gone, unless the folder was moved.

    Raises:
        IndexStoreError: The index is of another folder.
    """
    known = _meta(connection, path)["folder"]
    if known == str(identity.folder):
        return
    if exists(Path(known)) or not _holds_any(identity.folder, connection):
        raise IndexStoreError(
            f"the index {path} is of the folder {known}, not of {identity.folder}: choose another --index, "
            "or make it anew with --rebuild"
        )
    connection.execute("UPDATE meta SET value = CAST(? AS TEXT) WHERE key = 'folder'", (os.fsencode(identity.folder),))


def _holds_any(folder: Path, connection: sqlite3.Connection) -> bool:
    """Returns whether an indexed file lies in the folder unchanged, or none was indexed. A drive may be unmounted."""
    rows = connection.execute("SELECT path, size_bytes, modified_ns FROM videos").fetchall()
    return not rows or any(FileVersion.of(folder / path) == FileVersion(*version) for path, *version in rows)


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    found = dict(connection.execute("SELECT key, value FROM meta"))
    if not found.keys() >= {"bundle_sha256", "layout", "folder"}:
        raise DamagedIndexError(damaged(path, "it does not say what it is of"))
    return found


def _delete_if_unsound(path: Path) -> None:
    """Deletes the index at `path` if SQLite cannot make sense of it. No other file is ever touched."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise IndexStoreError(f"{path} is not an index and is left alone: choose another --index, or delete it")
    if not _is_sound(path):
        with sole_writer(path):
            if not _is_sound(path):  # else another process was quicker
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_sound(path: Path) -> bool:
    try:
        with explained(path), closing(_connect(path)) as connection:
            checked = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            # An index of SQLite's that lost its table would outlive it.
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            owners = {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}
            return checked and owners <= tables
    except DamagedIndexError:
        return False
