"""The served folders and models: opaque ids to the videos and clips of their indexes, and to open files.

An id says nothing and is no path: that of a video is a hash of its path in the index, that of a clip the video's with
the millisecond at which it begins. Only what the index holds has one, and a file is only opened if it lies in the
folder once all links are followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hbi_infer.api import HBI, Index
from hbi_infer.errors import HBIError, InputError
from hbi_infer.files import exists
from hbi_infer.index.store import LedgerEntry, StoredClip
from hbi_infer.serve.problems import Problem, not_found
from hbi_infer.serve.settings import ServeOptions
from hbi_infer.serve.shared_index import SharedIndex

_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{20})(?:-(\d{1,12}))?")
_TASKS = ("retrieve", "qa", "caption")


@dataclass(frozen=True)
class ServedVideo:
    """A video of an index.

    Attributes:
        collection: The collection that it belongs to.
        id: Opaque id.
        entry: Entry of the file in the index.
    """

    collection: Collection
    id: str
    entry: LedgerEntry

    @property
    def path(self) -> str:
        """The path relative to the folder, as it is shown."""
        return shown_path(self.entry.path)

    def clips(self) -> list[StoredClip]:
        """Returns the clips of the video, in order."""
        store = self.collection.index.store
        return store.clips(store.clip_ids_of(self.entry.path).tolist())

    def middle_clip(self) -> StoredClip | None:
        """Returns the clip in the middle, which says more of a video than its first frames; None if it is gone."""
        store = self.collection.index.store
        ids = store.clip_ids_of(self.entry.path).tolist()
        return next(iter(store.clips(ids[len(ids) // 2 :][:1])), None)

    def file(self) -> Path:
        """Returns the file, all links followed, for a process that decodes it.

        Raises:
            Problem: It is gone, or leads out of the folder.
        """
        with self.open_file():
            return (self.collection.folder / self.entry.path).resolve()

    @contextmanager
    def open_file(self) -> Iterator[int]:
        """Opens the file to be read; yields its descriptor.

        Raises:
            Problem: It is gone, or leads out of the folder.
        """
        descriptor = open_inside(self.collection.folder, self.entry.path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        changed = datetime.fromtimestamp(self.entry.version.modified_ns / 1e9, UTC)
        return {
            "id": self.id,
            "path": self.path,
            "duration_seconds": self.entry.duration_seconds,
            "clips": len(self.collection.index.store.clip_ids_of(self.entry.path)),
            "modified": changed.isoformat(timespec="seconds"),
            "stream": f"/v1/videos/{self.id}/stream",
        }


class Collection:
    """A folder that is served with a model.

    Args:
        folder: The folder.
        model: The model.
        may_write: Whether an index is made where there is none.
        load_writer: Loads the model that updates the index; None takes `model`.

    Attributes:
        id: Opaque id.
        name: Name of the folder, and of the model where there are several.
        folder: The folder, absolute, with all links followed.
        model: The model.
        location: The index's file.
    """

    def __init__(
        self, folder: Path, model: HBI, *, may_write: bool = True, load_writer: Callable[[], HBI] | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.model = model
        self.name = shown_path(self.folder.name or str(self.folder))
        key = os.fsencode(self.folder) + b"\0" + model.bundle.sha256.encode()
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        self.id = hashlib.blake2b(self._key, digest_size=4).hexdigest()
        self.location = Index.location(self.folder, model)
        self._may_write = may_write
        self._load_writer = load_writer or (lambda: model)
        self._lock = threading.Lock()
        self._paths: tuple[tuple[int, int], dict[str, LedgerEntry]] | None = None
        self._index, self._file = self._open()

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that the model does."""
        can = self.model.bundle.manifest.tasks
        return [task for task in _TASKS if task in can] + ["interaction"]

    @property
    def index(self) -> Index:
        """The index, opened anew if another process has put another file in its place."""
        with self._lock:
            path = self._index.store.path
            if _identity(path) not in (self._file, None):
                old, (self._index, self._file) = self._index, self._open()
                self._paths = None
                old.close()
            return self._index

    def open_writer(self) -> Index:
        """Opens the index once more, to be updated while it is read."""
        return Index.open(self.folder, self._load_writer(), location=self.location)

    def _open(self) -> tuple[SharedIndex, tuple[int, int] | None]:
        path = self.location
        if not self._may_write and not exists(path):
            raise InputError(f"nothing of {self.folder} is indexed: leave out --no-update")
        may_not = exists(path) and not os.access(path, os.W_OK)
        is_closed = not self._may_write and may_not
        index = SharedIndex.open(self.folder, self.model, location=path, read_only=is_closed)
        return index, _identity(index.store.path)

    def close(self) -> None:
        """Closes the index."""
        self._index.close()

    def video_id(self, path: str) -> str:
        """Returns the id of a video by its path relative to the folder."""
        return f"{self.id}-{hashlib.blake2b(os.fsencode(path), digest_size=10, key=self._key).hexdigest()}"

    def videos(self) -> dict[str, LedgerEntry]:
        """Returns the entry of each video that has clips, by id, in order of path."""
        index = self.index
        version = index.store.version()
        known = self._paths
        if known is None or known[0] != version:
            entries = [entry for entry in index.store.ledger().values() if entry.status != "failed"]
            entries.sort(key=lambda entry: entry.path)
            known = version, {self.video_id(entry.path): entry for entry in entries}
            self._paths = known
        return known[1]

    def video(self, video_id: str) -> ServedVideo:
        """Returns a video by its id.

        Raises:
            Problem: There is none.
        """
        entry = self.videos().get(video_id)
        if entry is None:
            raise not_found("video", video_id)
        return ServedVideo(self, video_id, entry)

    def relative(self, path: Path) -> str:
        """Returns the path of a result, which begins with the folder, as the index has it."""
        return os.fspath(path)[len(os.path.join(self.folder, "")) :].replace(os.sep, "/")  # noqa: PTH118 - quicker

    def counts(self) -> tuple[int, int, int, int] | None:
        """Returns the numbers of clips, videos and failures, and the index's bytes; None if it cannot be read."""
        try:
            index = self.index
            failed = len(index.failures())
            return index.store.num_clips(), len(self.videos()), failed, self.location.stat().st_size
        except (HBIError, OSError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        manifest = self.model.bundle.manifest
        return {
            "id": self.id,
            "name": self.name,
            "model": {"name": manifest.name, "sha256": self.model.bundle.sha256},
            "tasks": self.tasks,
            "clips": self.index.store.num_clips(),
            "videos": len(self.videos()),
            "notice": manifest.notice,
            "clip_seconds": manifest.sampling.clip_seconds,
            "min_match": manifest.min_match,
        }


class Library:
    """All that is served.

    Args:
        collections: Folders with models.

    Attributes:
        collections: The same, by id; the first is meant where none is named.
    """

    def __init__(self, collections: list[Collection]) -> None:
        self.collections = {collection.id: collection for collection in collections}

    @classmethod
    def open(cls, options: ServeOptions) -> Library:
        """Loads the models and opens the indexes.

        Raises:
            InputError: A folder cannot be read, or nothing of it is indexed and nothing is to be.
            HBIError: A model or an index cannot be used.
        """
        # One thread a graph: sentences are short, requests are many, and threads that wait for each other take time
        # from others. Videos are encoded by all threads, in a model of their own.
        models = [HBI.load(name, device=options.device, threads=1) for name in options.bundles]
        writers = [partial(HBI.load, name, device=options.device) for name in options.bundles]
        collections = [
            Collection(folder, model, may_write=options.update, load_writer=writer)
            for folder in options.videos
            for model, writer in zip(models, writers, strict=True)
        ]
        if len(models) > 1:
            for collection in collections:
                collection.name += f" ({collection.model.bundle.manifest.name})"
        return cls(collections)

    def collection(self, given: str | None) -> Collection:
        """Returns a collection by its id, or the first.

        Raises:
            Problem: There is none with this id.
        """
        if given is None:
            return next(iter(self.collections.values()))
        if given not in self.collections:
            raise not_found("collection", given)
        return self.collections[given]

    def video(self, given: str) -> ServedVideo:
        """Returns a video by its id, which says its collection too.

        Raises:
            Problem: There is none.
        """
        parts = _ID.fullmatch(given)
        if parts is None or parts[3] is not None or parts[1] not in self.collections:
            raise not_found("video", given)
        return self.collections[parts[1]].video(given)

    def clip(self, given: str) -> tuple[ServedVideo, StoredClip]:
        """Returns a clip and its video by the clip's id.

        Raises:
            Problem: There is none.
        """
        parts = _ID.fullmatch(given)
        if parts is None or parts[3] is None or parts[1] not in self.collections:
            raise not_found("clip", given)
        video = self.collections[parts[1]].video(f"{parts[1]}-{parts[2]}")
        for clip in video.clips():
            if round(clip.start_seconds * 1000) == int(parts[3]):
                return video, clip
        raise not_found("clip", given)

    def shown(self, message: str) -> str:
        """Returns a message without the places of folders and indexes on this machine."""
        for collection in self.collections.values():
            message = message.replace(str(collection.location), f"of {collection.name}")
            message = message.replace(f"{collection.folder}{os.sep}", "").replace(
                str(collection.folder), collection.name
            )
        return message

    def close(self) -> None:
        """Closes all indexes."""
        for collection in self.collections.values():
            collection.close()


def clip_id(video_id: str, start_seconds: float) -> str:
    """Returns the id of the clip of a video that begins at a time."""
    return f"{video_id}-{round(start_seconds * 1000)}"


def shown_path(path: str) -> str:
    """Returns a path as text that any client takes: bytes that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")


def open_inside(folder: Path, path: str) -> int:
    """Opens a regular file of a folder to be read, and looks where it lies once it is open.

    Args:
        folder: The folder, with all links followed.
        path: Path relative to it, as the index has it.

    Returns:
        A descriptor.

    Raises:
        Problem: It is gone or no regular file, cannot be read, or leads out of the folder.
    """
    gone = Problem(
        404, "gone", "The file is gone", f"{shown_path(path)} is not in its folder any more: update the index"
    )
    try:
        real = (folder / path).resolve(strict=True)
        _check_inside(folder, real, path)
        # Not blocked by what is no regular file, and never through a link that was put there meanwhile.
        descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError, RuntimeError):
        raise gone from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise gone
        with suppress(FileNotFoundError):  # a system without /proc
            _check_inside(folder, Path(os.readlink(f"/proc/self/fd/{descriptor}")), path)  # noqa: PTH115
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_inside(folder: Path, real: Path, path: str) -> None:
    if not real.is_relative_to(folder):
        detail = f"{shown_path(path)} is a link that leads out of its folder: serve the folder that it leads to"
        raise Problem(403, "outside", "The file lies outside", detail)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
