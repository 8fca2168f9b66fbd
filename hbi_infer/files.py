"""Files and folders that a user names: looked at with clear errors, and written as a whole or not at all.

`Path.is_file` and its like raise `PermissionError` where a folder on the way may not be entered, and `OSError` where a
name is too long; here that is an error that says so.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from hbi_infer.errors import InputError


def exists(path: Path) -> bool:
    """Returns whether there is anything at a path.

    Raises:
        InputError: The path cannot be looked at.
    """
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    """Returns whether there is a regular file at a path.

    Raises:
        InputError: The path cannot be looked at.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Returns whether there is a folder at a path.

    Raises:
        InputError: The path cannot be looked at.
    """
    return stat.S_ISDIR(_mode(path))


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuses a file that could not be written, before there is anything to write.

    Raises:
        InputError: The file exists and is not to be overwritten, or its folder does not exist.
    """
    if exists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --force to overwrite it, or another --out")
    if not is_folder(path.parent):
        raise InputError(f"there is no folder {path.parent} to write {path.name} to: make it, or give another --out")


def write_whole(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes a file beside its place and renames it: the place always holds the old file or the whole new one.

    Raises:
        InputError: It cannot be written, or exists and is not to be overwritten.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        check_target(path, overwrite=overwrite)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """Returns the error of a file that cannot be written."""
    return InputError(f"cannot write {path} ({error.strerror}): free space, or give another --out")


def _mode(path: Path) -> int:
    """Returns the mode that `stat` gives for a path; 0 if there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name that no file can have
        return 0
    except OSError as error:
        raise InputError(
            f"cannot look at {path} ({error.strerror}): mend its permissions, or give another path"
        ) from error
