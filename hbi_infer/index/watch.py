"""Keeping an index up to date while files come and go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, TypeAlias

from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import FileVersion
from hbi_infer.index.update import IndexReport, VideoChange
from hbi_infer.index.writer_lock import sole_writer

SETTLE_SECONDS = 3.0
"""Time for which a file must stay as it is before it is indexed, or stay away before it is forgotten."""

TICK_SECONDS = 1.0
"""Time between two looks at whether the folder is still there."""

RESCAN_SECONDS = 60.0
"""Time after which the folder is looked through though nothing was told: the system may lose what happens."""

FALLBACK_SECONDS = 10.0
"""Time between two looks through a folder of which the system tells nothing."""

Situation: TypeAlias = Literal["watching", "gone", "empty", "made_anew", "not_told"]

_Identity: TypeAlias = tuple[int, int] | None


class Settling:
    """Decides which files wait: those that were not the same for long enough.

    Args:
        folder: The folder.
        seconds: Time for which a file must stay as it is.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._since: dict[str, tuple[FileVersion | None, float]] = {}
        self._asked: set[str] = set()
        self._drives: dict[Path, int] = {}
        self._misses_any = False
        self.is_waiting = False

    @contextmanager
    def a_look(self) -> Iterator[None]:
        """Lets the block ask about all files that are new, changed or gone; what it does not ask about is settled."""
        self.is_waiting = self._misses_any = False
        self._asked = set()
        yield
        self._since = {path: since for path, since in self._since.items() if path in self._asked}

    def __call__(self, path: str, version: FileVersion | None, /) -> bool:
        """Returns whether to wait; the version is that of the file now, None if it is gone."""
        self._asked.add(path)
        self._misses_any |= version is None
        now = time.monotonic()
        known, since = self._since.setdefault(path, (version, now))
        if known != version:
            self._since[path] = version, now
        elif now - since >= self._seconds:
            return version is None and self._lay_on_another_drive(path)
        self.is_waiting = True
        return True

    def remember_drives(self, paths: Iterable[str]) -> None:
        """Keeps which drive each of the folders lies on in which these videos lie, unless any is missing."""
        if self._misses_any:
            return
        for folder in {parent for path in paths for parent in PurePosixPath(path).parents}:
            if (drive := _drive(self._folder / folder)) is not None:
                self._drives[self._folder / folder] = drive

    def _lay_on_another_drive(self, path: str) -> bool:
        """Returns whether a folder around a missing video is another drive's now: its own is not there."""
        folders = [self._folder / parent for parent in PurePosixPath(path).parents]
        return any(_drive(folder) not in (None, self._drives.get(folder, _drive(folder))) for folder in folders)


def _drive(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None


class Update(Protocol):
    """An update of an index, with the options that it has."""

    def __call__(
        self, index: FolderIndex, on_change: Callable[[VideoChange], None], holds_back: Settling, /
    ) -> IndexReport:
        """Updates an index, and tells of each change; what is held back waits for a later update."""


@dataclass(kw_only=True)
class Watcher:
    """One watch over a folder and its index.

    Attributes:
        open_index: Opens the index, or makes it; called again if its file was deleted or replaced.
        update: Updates the index.
        on_change: Called after each change of the index.
        on_situation: Called when the situation has changed, with the folder.
        settle_seconds: Time for which a file must stay as it is before it is indexed.
        poll_seconds: Time between two looks through the folder; None lets the system tell of changes, which it cannot
            on a network drive that others write to.
    """

    open_index: Callable[[], FolderIndex]
    update: Update
    on_change: Callable[[VideoChange], None]
    on_situation: Callable[[Situation, Path], None] = lambda _situation, _folder: None
    settle_seconds: float = SETTLE_SECONDS
    poll_seconds: float | None = None
    _situation: Situation | None = field(default=None, init=False)

    def run(self) -> None:
        """Watches until it is interrupted.

        Raises:
            IndexStoreError: Another process watches this index, or the index cannot be used any more.
            KeyboardInterrupt: It was interrupted; all that it told of is stored.
        """
        index = self.open_index()
        settling = Settling(index.folder, self.settle_seconds)
        try:
            while True:
                path, file = index.store.path, _identity(index.store.path)
                with sole_writer(path.with_name(path.name + ".watch"), lambda path=path: _refuse(path)):  # type: ignore[misc]
                    self._keep_up(index, file, settling)
                self._wait_until_back(index.folder)
                if _identity(path) != file:
                    self._tell("made_anew", index.folder)
                    index.close()
                    index = self.open_index()
        finally:
            index.close()

    def _keep_up(self, index: FolderIndex, file: _Identity, settling: Settling) -> None:
        """Watches until the folder, or the index's file, is another one."""
        root = _identity(index.folder)
        due = time.monotonic()
        for has_changed in self._ticks(index):
            if (_identity(index.folder), _identity(index.store.path)) != (root, file):
                return
            now = time.monotonic()
            due = min(due, now + self.settle_seconds / 4) if has_changed else due
            if now >= due:
                self._look(index, file, settling)
                rest = self.poll_seconds or RESCAN_SECONDS
                due = time.monotonic() + (min(rest, self.settle_seconds) if settling.is_waiting else rest)

    def _look(self, index: FolderIndex, file: _Identity, settling: Settling) -> None:
        try:
            with settling.a_look():
                self.update(index, self.on_change, settling)
            settling.remember_drives(index.store.ledger())
            self._tell("watching", index.folder)
        except InputError:  # no video, for now or for good: what is indexed is kept
            self._tell("empty" if _identity(index.folder) else "gone", index.folder)
        except IndexStoreError:
            if _identity(index.store.path) == file:
                raise

    def _tell(self, situation: Situation, folder: Path) -> None:
        if situation != self._situation:
            self._situation = situation
            self.on_situation(situation, folder)

    def _wait_until_back(self, folder: Path) -> None:
        while _identity(folder) is None:
            self._tell("gone", folder)
            time.sleep(TICK_SECONDS)

    def _ticks(self, index: FolderIndex) -> Iterator[bool]:
        """Yields, every `TICK_SECONDS` or sooner, whether the system told of a change; ends where it cannot tell."""
        if self.poll_seconds is None:
            from watchfiles import watch

            own = str(index.store.path.resolve())
            try:
                for changes in watch(
                    index.folder,
                    watch_filter=lambda _, path: not path.startswith(own),
                    debounce=500,
                    rust_timeout=int(1000 * TICK_SECONDS),
                    yield_on_timeout=True,
                    recursive=True,
                    force_polling=False,
                    ignore_permission_denied=True,
                ):
                    yield bool(changes)
            except OSError:
                if _identity(index.folder) is not None:  # there is a largest number of folders that it tells of
                    self._tell("not_told", index.folder)
                    self.poll_seconds = FALLBACK_SECONDS
        while True:
            time.sleep(min(TICK_SECONDS, self.poll_seconds or TICK_SECONDS))
            yield False


def _identity(path: Path) -> _Identity:
    """Returns what tells a file or folder from another one of its name; None if it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - `Path.stat` is the same
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse(path: Path) -> None:
    raise IndexStoreError(f"another process watches the index {path} already: end that one, or choose another --index")
