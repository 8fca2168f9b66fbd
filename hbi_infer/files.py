"""Files and folders that a user names: looked at with clear errors, and written as a whole or not at all.

`Path.is_file` and its like raise `PermissionError` where a folder on the way may not be entered, and `OSError` where a
name is too long; here that is an error that says so.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hbi_infer.errors import InputError

LONGEST_NAME = 255
"""Most bytes of a file's name on the usual file systems."""


ANOTHER_OUT = "another --out"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def check_target(path: Path, *, overwrite: bool, instead: str = ANOTHER_OUT) -> None:
    """Refuses a file that could not be written, before there is anything to write.

    Args:
        path: The file.
        overwrite: Whether a file that exists is replaced.
        instead: Words for what to give instead, in an error.

    Raises:
        InputError: The file exists and is not to be overwritten, or its folder does not exist.
    """
    if exists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --force to overwrite it, or {instead}")
    if not is_folder(path.parent):
        raise InputError(f"there is no folder {path.parent} to write {path.name} to: make it, or give {instead}")


def write_whole(path: Path, content: bytes, *, overwrite: bool, instead: str = ANOTHER_OUT) -> None:
    """Writes a file beside its place and renames it: the place always holds the old file or the whole new one.

    Args:
        path: The file.
        content: Its content.
        overwrite: Whether a file that exists is replaced.
        instead: Words for what to give instead, in an error.

    Raises:
        InputError: It cannot be written, or exists and is not to be overwritten.
    """
    new = path.with_name(fitting_name(f".{path.name}", ".new", longest_name(path.parent)))
    try:
        check_target(path, overwrite=overwrite, instead=instead)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise cannot_write(path, error, instead=instead) from error


def cannot_write(path: Path, error: OSError, *, instead: str = ANOTHER_OUT) -> InputError:
    """Returns the error of a file that cannot be written; `instead` names what to give instead."""
    remedy = "free space, or " if error.errno in _NO_SPACE else ""
    return InputError(f"cannot write {path} ({error.strerror}): {remedy}give {instead}")


def fitting_name(stem: str, ending: str, longest: int) -> str:
    """Returns `stem + ending`; where that has more than `longest` bytes, a hash replaces the end of the stem."""
    room = longest - len(os.fsencode(ending))
    if len(os.fsencode(stem)) <= room:
        return stem + ending
    mark = f"~{short_hash(stem)}"
    while len(os.fsencode(stem)) > room - len(mark):
        stem = stem[:-1]
    return f"{stem}{mark}{ending}"


def short_hash(name: str) -> str:
    """Returns eight digits that tell names apart and are the same in every run."""
    import hashlib  # a command that starts need not wait for it

    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def longest_name(folder: Path) -> int:
    """Returns the most bytes of a name in a folder, or in the nearest one above it that is there."""
    if sys.platform != "win32":
        for place in (folder, *folder.absolute().parents):
            with suppress(OSError, ValueError):
                # FAT counts letters and states more bytes than it takes.
                return min(os.pathconf(place, "PC_NAME_MAX"), LONGEST_NAME)
    return LONGEST_NAME


def one_form(text: str) -> str:
    """Returns a text in one of the forms that Unicode has for the same letters (NFC); macOS writes names in another."""
    import unicodedata  # a command that starts need not wait for it

    return unicodedata.normalize("NFC", text)


def path_matcher(pattern: str) -> Callable[[str], bool]:
    """Returns a function that says whether a whole path matches a pattern.

    Upper and lower case are the same unless the pattern has a capital letter, and so are all Unicode forms of a letter.

    Args:
        pattern: A path in which `*` stands for any letters, also "/", `?` for one letter, `[...]` for one of some
            letters, and `[!...]` or `[^...]` for any other one.
    """
    same_form = one_form(pattern)
    ignored = re.NOFLAG if any(map(str.isupper, same_form)) else re.IGNORECASE
    matches = re.compile(fnmatch.translate(same_form.replace("[^", "[!")), ignored).match
    return lambda path: matches(one_form(path)) is not None


def inside_matcher(folder: str) -> Callable[[str], bool]:
    """Returns a function that says whether a path lies in a folder or below it; compares as `path_matcher` does."""
    return path_matcher(re.sub(r"([*?[])", r"[\1]", folder) + "/*")


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
