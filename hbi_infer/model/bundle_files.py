"""The files of a bundle, of a folder or of a zip: listed once, and read whole and no further than a limit."""

from __future__ import annotations

import io
import stat
import struct
import weakref
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO

from hbi_infer.errors import BundleError

MANIFEST = "bundle.json"
PART_BYTES = 2**20
DIRECTORY_LIMIT_BYTES = 2**20
"""Largest directory of a zip: that of some 10,000 files, where a bundle has ten."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions that can be read part by part; a few bytes of the others may unfold to gigabytes at once."""
WHERE_FROM = "give a bundle's folder or a .zip of it"
FAULTS = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # NotImplementedError included
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that `zipfile` raises for damaged files."""


class BundleFiles:
    """The files beside bundle.json, itself included.

    Args:
        path: Folder or zip.
        sizes_bytes: Name -> size, as the folder or the zip states it.
        open_file: Opens one of them.
    """

    def __init__(self, path: Path, sizes_bytes: Mapping[str, int], open_file: Callable[[str], IO[bytes]]) -> None:
        self._path, self._open = path, open_file
        self.sizes_bytes = sizes_bytes

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Reads a file whole.

        Raises:
            BundleError: There is no such file, it is larger than the limit, or it cannot be read.
        """
        path = self._path / name
        if (stated := self.sizes_bytes.get(name)) is None:
            raise BundleError(f"{self._path} has no {name}: {WHERE_FROM}")
        if stated > limit_bytes:
            raise BundleError(f"{path} has {stated:,} bytes; the most is {limit_bytes:,}: it is not a bundle's file")
        try:
            with self._open(name) as stream:
                content = _read(stream, stated)
        except FAULTS as error:
            raise BundleError(f"{path} cannot be read ({error}): copy the bundle again, or export it again") from error
        if len(content) != stated:
            found = "more" if len(content) > stated else f"{len(content):,}"
            raise BundleError(f"{path} should have {stated:,} bytes and has {found}: copy the bundle again")
        return content


def open_files(path: Path) -> BundleFiles:
    """Lists the files of the bundle at a path, once; a zip stays open, so that what was listed is what is read.

    Raises:
        BundleError: There is no bundle, or a zip of one that is damaged or unsafe.
    """
    try:
        if path.is_dir():
            sizes = {entry.name: entry.stat().st_size for entry in path.iterdir() if entry.is_file()}
            return BundleFiles(path, sizes, lambda name: (path / name).open("rb"))
        if not path.is_file():
            raise BundleError(f"there is no bundle at {path}: {WHERE_FROM}")
        with ExitStack() as on_error:
            stream = on_error.enter_context(_BoundedReader(io.FileIO(path)))
            archive = zipfile.ZipFile(stream)
            members = _members(path, archive)
            on_error.pop_all()
    except FAULTS as error:
        raise BundleError(f"{path} cannot be read as a bundle ({error}): {WHERE_FROM}") from error
    sizes = {name: info.file_size for name, info in members.items()}
    files = BundleFiles(path, sizes, lambda name: archive.open(members[name]))
    weakref.finalize(files, stream.close)
    return files


class _BoundedReader(io.BufferedReader):
    """A file of which no large part is read at once; `zipfile` reads a directory so, however large it says it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_LIMIT_BYTES:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes; the most is {DIRECTORY_LIMIT_BYTES:,}")
        return super().read(size)


def _read(stream: IO[bytes], stated_bytes: int) -> bytes:
    """Reads the bytes that a file states to have, and one more if there is one."""
    parts = []
    rest = stated_bytes + 1
    while rest and (part := stream.read(min(rest, PART_BYTES))):
        parts.append(part)
        rest -= len(part)
    return b"".join(parts)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of the archive's folder with bundle.json: the top one, or a single one below it."""
    names: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename)
        shown = f"{info.orig_filename!r:.80}"
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename or "\0" in info.orig_filename:
            raise BundleError(f"{path} holds the name {shown}, which leads out of it: do not trust this file")
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"{path} holds {shown}, which is a link: make the zip of the files themselves")
        if info.flag_bits & 1:
            raise BundleError(f"{path} holds {shown}, which is encrypted: make the zip without a password")
        if info.compress_type not in METHODS:
            raise BundleError(f"{path} holds {shown}, compressed in another way than deflate: make the zip with that")
        if name in names:
            raise BundleError(f"{path} holds {shown} twice: make the zip again from the bundle's folder")
        names[name] = info
    roots = {name.parent for name in names if name.name == MANIFEST and len(name.parts) <= 2}
    if len(roots) != 1:
        raise BundleError(f"{path} holds {len(roots)} files {MANIFEST}; it must be a zip of one bundle's folder")
    root = roots.pop()
    return {name.name: info for name, info in names.items() if name.parent == root}
