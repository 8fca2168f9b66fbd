"""Finding video files. This file imports no decoder, for a search of a prepared index needs none."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from hbi_engines.operating_system import may_enter
from hbi_infer.errors import InputError
from hbi_infer.files import is_folder

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a file that is gone and of a link to nothing."""


def find_videos(folder: Path | str, on_unreadable: Callable[[Path, str], object] | None = None) -> list[Path]:
    """List the video files in a folder and its subfolders, sorted, going by their suffix.

    Hidden files and folders, and what is not a regular file, are left out.

    Args:
        folder: Where to look.
        on_unreadable: Called with each folder (or single file) that cannot be looked at, and why. What lies there is
            left out. Not told of a drive's lost+found, which only root may read.

    Raises:
        InputError: There is no such folder.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise InputError(f"{str(folder)!r} is not a folder; name a folder that holds videos")

    def tell(error: OSError) -> None:
        path = Path(error.filename)
        if on_unreadable is not None and error.errno not in _LEADS_NOWHERE and path.name != "lost+found":
            on_unreadable(path, error.strerror or str(error))

    def is_file(path: Path) -> bool:
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except OSError as error:
            tell(error)
            return False

    videos = []
    for parent, folders, files in os.walk(folder, onerror=tell):
        if not may_enter(parent):  # the names alone can be read
            tell(PermissionError(errno.EACCES, os.strerror(errno.EACCES), parent))
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        videos += [
            path
            for name in files
            if not name.startswith(".")
            and (path := Path(parent, name)).suffix.lower() in VIDEO_SUFFIXES
            and is_file(path)
        ]
    return sorted(videos)
