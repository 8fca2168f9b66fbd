"""Marks of the files' content, by which a file is known again under another name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hbi_infer.index.store import ContentMark, FileVersion

EDGE_BYTES = 64 * 1024
"""Number of bytes that are read at the beginning, and at the end, of a file."""


@dataclass(frozen=True)
class FileLook:
    """Size and times of a file.

    Attributes:
        version: Its size and the time of its last change.
        status_ns: Time of the last change of anything about it, its name and its permissions among them.
    """

    version: FileVersion
    status_ns: int

    @classmethod
    def at(cls, path: Path) -> FileLook | None:
        """Looks at a file; returns None if it is gone or cannot be looked at."""
        try:
            return cls._of(path.stat())
        except (OSError, ValueError):
            return None

    @classmethod
    def _of(cls, status: os.stat_result) -> FileLook:
        return cls(FileVersion(status.st_size, status.st_mtime_ns), status.st_ctime_ns)

    @classmethod
    def at_content(cls, path: Path) -> tuple[FileLook, bytes] | None:
        """Looks at a file and reads the hash of its edges; returns None if it cannot be read, or changes meanwhile."""
        try:
            with path.open("rb", buffering=0) as file:
                before = cls._of(os.fstat(file.fileno()))
                digest = hashlib.blake2b(file.read(EDGE_BYTES) or b"", digest_size=16)
                # The head and the tail of a short file overlap, and nothing is read twice.
                file.seek(max(EDGE_BYTES, before.version.size_bytes - EDGE_BYTES))
                digest.update(file.read(EDGE_BYTES) or b"")
                after = cls._of(os.fstat(file.fileno()))
        except (OSError, ValueError):
            return None
        return (before, digest.digest()) if before == after else None


def read_mark(path: Path, version: FileVersion) -> ContentMark | None:
    """Returns the mark of a file; None if it cannot be read, or is not of this version."""
    found = FileLook.at_content(path)
    if found is None or found[0].version != version:
        return None
    return ContentMark(digest=found[1], status_ns=found[0].status_ns)
