"""Finding video files. This file imports no decoder, for a search of a prepared index needs none."""

from __future__ import annotations

import os
from pathlib import Path

from hbi_infer.errors import InputError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on


def find_videos(folder: Path) -> list[Path]:
    """List the video files in a folder and its subfolders, sorted, going by their suffix.

    Hidden files and folders, and what is not a regular file, are left out.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; name a folder that holds videos")
    videos = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        videos += [
            path
            for name in files
            if not name.startswith(".")
            and (path := Path(parent, name)).suffix.lower() in VIDEO_SUFFIXES
            and path.is_file()
        ]
    return sorted(videos)
