"""The right to fill an index, which one process, and one thread in it, has at a time."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hbi_infer.errors import IndexStoreError

LOCK_POLL_SECONDS = 0.1


class LockFileWarning(UserWarning):
    """The lock file was something else, and was replaced."""


@contextmanager
def sole_writer(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the right to fill the index at `path`. The right ends with the process.

    It is the lock of an empty database beside the index, so that the index itself stays free for short transactions.

    Args:
        path: The index's file.
        on_wait: Called once if another process has the right and this one begins to wait.

    Raises:
        IndexStoreError: The lock file cannot be made or used.

    Warns:
        LockFileWarning: The lock file was no lock.
    """
    file = path.with_name(path.name + ".lock")
    waiting = False
    while (lock := _locked(file)) is None:
        if not waiting and on_wait is not None:
            on_wait()
        waiting = True
        time.sleep(LOCK_POLL_SECONDS)
    with closing(lock):
        yield


def _locked(file: Path) -> sqlite3.Connection | None:
    """Tries to take the lock; returns the connection that holds it, or None if it was not free."""
    _check_kind(file)
    lock = None
    try:
        lock = sqlite3.connect(file, timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if lock:
            lock.close()
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            # A lock file is empty. One that holds something and works, such as another program's database, is kept.
            if not (file.is_file() and file.stat().st_size and os.access(file, os.R_OK | os.W_OK)):
                raise IndexStoreError(
                    f"the lock file {file} cannot be used ({error}): mend its permissions or delete it, or choose "
                    "another place with --index"
                ) from error
            _empty(file)
            return _locked(file)
        return None
    return lock


def _check_kind(file: Path) -> None:
    """Removes an empty folder in the lock file's place; refuses what else is no regular file."""
    try:
        mode = file.stat().st_mode
    except OSError:  # it is not there yet, or SQLite says what is wrong
        return
    if stat.S_ISDIR(mode):
        try:
            file.rmdir()
        except OSError as error:
            raise IndexStoreError(
                f"the lock file {file} is a folder ({error.strerror}): move it, or choose another --index"
            ) from error
        _tell_replaced(file, "was an empty folder")
    elif not stat.S_ISREG(mode):
        raise IndexStoreError(f"the lock file {file} is no regular file: delete it, or choose another --index")


def _empty(file: Path) -> None:
    """Empties a file that is no lock, in its place, where other processes may wait for it; what it held is kept."""
    try:
        with tempfile.NamedTemporaryFile(prefix=file.name + ".", dir=file.parent, delete=False) as kept:
            shutil.copyfile(file, kept.name)
        os.truncate(file, 0)
        _tell_replaced(file, f"held something else, which is kept in {kept.name}")
    except OSError as error:
        raise IndexStoreError(
            f"the lock file {file} holds something else and cannot be replaced ({error.strerror}): delete it, or "
            "choose another --index"
        ) from error


def _tell_replaced(file: Path, what: str) -> None:
    warnings.warn(f"the lock file {file} {what}: it was replaced", LockFileWarning, stacklevel=5)
