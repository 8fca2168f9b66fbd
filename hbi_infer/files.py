"""Files and folders that a user names: what is there.

`Path.is_file` and its like raise `PermissionError` where a folder on the way may not be entered, and `OSError` where a
name is too long; here that is an error that says so.
"""

from __future__ import annotations

import stat
from pathlib import Path

from hbi_infer.errors import InputError


def exists(path: Path) -> bool:
    """Whether anything is there.

    Raises:
        InputError: It cannot be told.
    """
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    """Whether a regular file is there.

    Raises:
        InputError: It cannot be told.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a folder is there.

    Raises:
        InputError: It cannot be told.
    """
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """What is there, as `stat` says; 0 for nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name that no file can have
        return 0
    except OSError as error:
        raise InputError(
            f"cannot look at {path} ({error.strerror}): mend its permissions, or give another path"
        ) from error
