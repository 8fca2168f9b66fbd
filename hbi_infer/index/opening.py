"""Opening the file of the embedded store, to write or only to read; making one."""

from __future__ import annotations

import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.formats import bring_up_to_date, read_as_newest
from hbi_infer.index.rows import Contents
from hbi_infer.index.sqlite_file import (
    APPLICATION_ID,
    FORMAT_VERSION,
    DamagedIndexError,
    Identity,
    begin_anew,
    cannot_be_used,
    check_folder,
    check_format,
    check_model,
    connect,
    explained,
    read_meta,
    transaction,
    write_meta,
)
from hbi_infer.index.writer_lock import sole_writer

COMPANIONS = ("-wal", "-shm")
"""Endings of the files that SQLite keeps beside the index while it is used."""


class EmptyIndexWarning(UserWarning):
    """The index's file was there and held nothing; all is indexed anew."""


class FileState(NamedTuple):
    """Sizes and times of an index's file and of its WAL: others once a process has written."""

    file: tuple[int, int]
    wal: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Returns the state of the index at `path` as it is now."""
        # SQLite looks for the WAL beside the file that a link leads to.
        place = path.resolve()
        return cls(_size_and_time(place), _size_and_time(Path(f"{place}-wal")))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


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

    Warns:
        EmptyIndexWarning: The file has 0 bytes; it is made anew.
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
        _make_if_missing(path, identity, rebuild)
        connection = connect(path)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # With WAL a crash of the machine can lose the last videos, which are indexed again, but harms no file.
            connection.execute("PRAGMA synchronous = NORMAL")
            if _is_empty(connection, path):
                with sole_writer(path):
                    _fill(connection, path, identity)
            if not rebuild:
                _check(connection, path, identity)
        except BaseException:
            connection.close()
            raise
    return connection


def open_to_read(path: Path, identity: Identity) -> tuple[sqlite3.Connection, FileState | None]:
    """Opens the index at `path` and writes nothing, whatever its format.

    Args:
        path: The index's file.
        identity: The model and the folder that the index must belong to.

    Returns:
        A connection; and the state of the file, if it is read without SQLite's locks, which the place does not allow.
        Then it must not be read any more once it has another state.

    Raises:
        IndexStoreError: There is none, it is of another model or folder, of a newer format, damaged, no index at all,
            or cannot be read.
    """
    with explained(path, "read"):
        if _is_missing(path):
            if path.exists():
                raise DamagedIndexError(path, "it has 0 bytes")
            raise IndexStoreError(f"there is no index {path}: make it with hbi-infer index")
        connection, state = _connect_to_read(path)
        try:
            if _is_empty(connection, path):
                raise DamagedIndexError(path, "it has no tables")
            version = check_format(connection, path)
            meta = read_meta(connection, path, has_checksum=version >= 3)
            check_model(meta, path, identity)
            check_folder(connection, meta, path, identity)
            if version < FORMAT_VERSION:
                read_as_newest(connection, path, identity, version)
        except BaseException:
            connection.close()
            raise
    return connection, state


def _connect_to_read(path: Path) -> tuple[sqlite3.Connection, FileState | None]:
    """Connects, if need be without locks: SQLite keeps them in a file beside the index, which may be impossible."""
    connection = connect(path)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
        return connection, None
    except sqlite3.OperationalError:
        connection.close()
    state = FileState.of(path)
    if not state.wal[0]:
        return connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1"), state
    # `immutable` would pass over the WAL. In exclusive mode its index is in memory.
    try:
        connection = connect(f"{path.absolute().as_uri()}?mode=ro&vfs=unix-none")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as exc:
        raise IndexStoreError(
            f"the index {path} has changes in {path.name}-wal, which cannot be read ({exc}): mend the permissions of "
            "both, or copy both to a folder that may be written"
        ) from exc
    return connection, state


def _check(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Checks what an index is of, and brings its format and its folder up to date."""
    version = check_format(connection, path)
    meta = read_meta(connection, path, has_checksum=version >= 3)
    check_model(meta, path, identity)
    check_folder(connection, meta, path, identity)
    if version < FORMAT_VERSION:
        with sole_writer(path):  # another process waits for as long as it takes
            bring_up_to_date(connection, path, identity)
    if meta["folder"] != str(identity.folder):
        with transaction(connection):
            meta = read_meta(connection, path)
            write_meta(connection, meta | identity.meta(), Contents.from_text(meta["contents"]))


def _is_empty(connection: sqlite3.Connection, path: Path) -> bool:
    """Returns whether the tables have yet to be made; refuses a database of another program."""
    has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if has_tables and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise IndexStoreError(f"{path} is a database of another program, not an index; choose another --index")
    return not has_tables


def _is_missing(path: Path) -> bool:
    """Returns whether there is no file, or one of 0 bytes."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:  # SQLite says what is wrong
        return False


def _make_if_missing(path: Path, identity: Identity, rebuild: bool) -> None:
    """Makes an empty index where there is no file, or one of 0 bytes, which no process makes for a moment only."""
    if not _is_missing(path):
        return
    if not os.access(path.parent, os.W_OK):
        raise IndexStoreError(cannot_be_used(path, "opened for writing", "nothing may be written there"))
    with sole_writer(path):
        if not _is_missing(path):  # another process was quicker
            return
        if path.exists() and not rebuild:
            warnings.warn(
                f"the index {path} is damaged (it has 0 bytes): all is indexed anew", EmptyIndexWarning, stacklevel=5
            )
        put_in_place(make_file(path, identity), path)


def make_file(path: Path, identity: Identity) -> Path:
    """Makes an empty index beside `path`, to be renamed; returns its path."""
    new = path.with_name(f".{path.name}.new")
    for suffix in ("", *COMPANIONS):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    with closing(connect(new)) as connection:
        _fill(connection, new, identity)
    return new


def put_in_place(new: Path, path: Path) -> None:
    """Replaces the index at `path` by a new one, within the right to fill it. Who has the old one open reads on."""
    for suffix in COMPANIONS:  # SQLite would take them for the new one's
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)


def _fill(connection: sqlite3.Connection, path: Path, identity: Identity) -> None:
    """Makes the tables."""
    if not _is_empty(connection, path):  # another process was quicker
        return
    # The mark first, while there is no WAL yet: `_delete_if_unsound` reads it from the file itself.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA journal_mode = WAL")
    with transaction(connection):
        begin_anew(connection, identity)


def _delete_if_unsound(path: Path) -> None:
    """Deletes the index at `path` if SQLite cannot make sense of it. No other file is ever touched."""
    if not path.is_file() or not path.stat().st_size:
        return
    check_mark(path)
    if not _is_sound(path):
        with sole_writer(path):
            if not _is_sound(path):  # else another process was quicker
                for suffix in ("", *COMPANIONS):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)


def check_mark(path: Path) -> None:
    """Refuses a file that is not an index, damaged or not, so that it is not replaced.

    Raises:
        IndexStoreError: It is not an index.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise IndexStoreError(f"{path} is not an index and is left alone: choose another --index, or delete it")


def _is_sound(path: Path) -> bool:
    try:
        with explained(path), closing(connect(path)) as connection:
            checked = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            # An index of SQLite's that lost its table would outlive it.
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            owners = {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}
            return checked and owners <= tables
    except DamagedIndexError:
        return False
