"""Files that a process was given open, because its sandbox lets it open none.

A file keeps its path as its name. Whoever wants to read it asks here first; a process that was given nothing opens
files by their paths.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hbi_engines.operating_system import read_at

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_descriptors: dict[Path, int] = {}
"""Path -> descriptor of the files that this process was given."""


class OpenedFile(io.RawIOBase):
    """An open file from its start, with a place of its own: readers of one descriptor do not disturb each other.

    Args:
        path: The file's path, which FFmpeg guesses with if the content leaves doubt.
        descriptor: The open file, which stays open.
    """

    def __init__(self, path: Path | str, descriptor: int) -> None:
        self.name = str(Path(path).absolute())
        self._descriptor, self._place = descriptor, 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads up to so many bytes; -1: all that follow."""
        if size < 0:
            return self.readall()
        content = read_at(self._descriptor, size, self._place)
        self._place += len(content)
        return content

    def readinto(self, target: WriteableBuffer) -> int:
        """Fills a part of the target; returns its size."""
        view = memoryview(target).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to another place, as files do."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        if start is None:
            start = os.fstat(self._descriptor).st_size
        if start + offset < 0:
            raise OSError(22, "a place before the start of the file")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Returns the place."""
        return self._place


@contextmanager
def opened(path: Path | str, descriptor: int | None) -> Iterator[None]:
    """Lets a file be read by its descriptor within the block, which closes it; None: by its path."""
    if descriptor is None:
        yield
        return
    _descriptors[Path(path)] = descriptor
    try:
        yield
    finally:
        del _descriptors[Path(path)]
        os.close(descriptor)


def opened_file(path: Path | str) -> OpenedFile | None:
    """Returns a file that this process was given open; None if it is to be opened by its path."""
    descriptor = _descriptors.get(Path(path))
    return None if descriptor is None else OpenedFile(path, descriptor)


def status(path: Path | str) -> os.stat_result:
    """Returns what the system says of a file.

    Raises:
        OSError: It says nothing.
        ValueError: No file can have this path.
    """
    path = Path(path)
    descriptor = _descriptors.get(path)
    return path.stat() if descriptor is None else os.fstat(descriptor)
