"""A folder of videos and its tokens: opened, brought up to date, read. What is done with the tokens is in `tasks`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs

from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.files import is_file, is_folder
from hbi_infer.index.sqlite_file import DamagedIndexError, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import ClipIds, VideoFault
from hbi_infer.index.update import (
    HoldsBack,
    IndexProgress,
    IndexReport,
    VideoChange,
    check_has_videos,
    plan_update,
    run_update,
)
from hbi_infer.index.verify import Verification, verify_file
from hbi_infer.model.encoder import Encoder, token_layout
from hbi_infer.options import EVERYTHING, Finding
from hbi_infer.tokens.levels import Levels, unsound
from hbi_infer.tokens.similarity import ClipMatrix, ClipScorer

CLIPS_AT_A_TIME = 1024
"""Number of clips whose tokens are read from the file at a time."""


class FolderIndex:
    """The tokens of the videos in a folder, of one model, in a file. Use `open`. Any thread may use it.

    Attributes:
        folder: The folder, absolute.
        encoder: The model.
        store: The file with the tokens.
    """

    def __init__(self, folder: Path | str, encoder: Encoder, store: SqliteStore) -> None:
        folder = Path(folder)
        self.folder = folder
        self.encoder = encoder
        self.store = store
        self._resident: tuple[tuple[int, int], ClipMatrix] | None = None
        self._resident_lock = threading.Lock()  # so that one thread reads the matrix and the others wait for it

    @classmethod
    def open(
        cls,
        folder: Path | str,
        encoder: Encoder,
        *,
        location: Path | str | None = None,
        rebuild: bool = False,
        read_only: bool = False,
    ) -> Self:
        """Opens the index of a folder, or makes an empty one.

        Args:
            folder: The folder of videos.
            encoder: The model.
            location: The index's file; by default in the user's cache folder, one for each folder and model.
            rebuild: Whether the next `update` throws away what an existing index holds, of whatever model or folder,
                once its first video is decoded and encoded.
            read_only: Whether to write nothing at all: the index must be there, and an `update` that finds work is an
                error.

        Raises:
            InputError: The folder cannot be read.
            IndexStoreError: The index is of another model or folder, damaged, or cannot be written; or there is none
                and it is only to be read.

        Warns:
            EmptyIndexWarning: The index's file has 0 bytes; it is made anew.
        """
        folder = Path(folder).resolve()
        path = cls.location(folder, encoder, location)
        try:
            os.scandir(folder).close()
        except OSError as exc:
            raise InputError(f"cannot read the folder {folder} ({exc.strerror}): give a folder of videos") from exc
        return cls(folder, encoder, SqliteStore(path, _identity(folder, encoder), rebuild=rebuild, read_only=read_only))

    @classmethod
    def open_for(
        cls,
        video: Path | str,
        encoder: Encoder,
        *,
        folder: Path | str | None = None,
        location: Path | str | None = None,
    ) -> Self | None:
        """Opens the index that a video is looked up in, only to read it; none is made.

        Args:
            video: The video.
            encoder: The model.
            folder: The index's folder; by default the nearest one above the video that has an index in the user's
                cache folder.
            location: The index's file, if `folder` is given and its index is not in the user's cache folder.

        Returns:
            None if no folder is given and none has an index.

        Raises:
            InputError: The folder has no index, or there is a location without a folder.
            IndexStoreError: The index is of another model or folder, or damaged.
        """
        video = Path(video)
        sha256 = encoder.bundle.sha256
        if folder is not None:
            path = cls.location(folder, encoder, location)
            if not is_file(path):
                raise InputError(f"{folder} has no index at {path}: make it with hbi-infer index, or name no folder")
            return cls.open(folder, encoder, location=path, read_only=True)
        if location is not None:
            raise InputError(f"the index {location} is given without the folder that it is of: give both")
        for parent in (video.parent.resolve() / video.name).parents:
            if is_file(default_location(parent, sha256)) and is_folder(parent):
                return cls.open(parent, encoder, read_only=True)
        return None

    @classmethod
    def verify(
        cls,
        folder: Path | str,
        encoder: Encoder,
        *,
        location: Path | str | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
    ) -> Verification:
        """Reads all that the index of a folder holds, and takes out what is damaged; `update` then indexes it anew.

        Args:
            folder: The folder of videos.
            encoder: The model.
            location: The index's file; by default in the user's cache folder.
            progress: Called after each video.

        Raises:
            InputError: Something is damaged, and there is no video in the folder that it could be mended from.
            IndexStoreError: There is no index, it is of another model or folder, or it cannot be written.
        """
        folder = Path(folder).resolve()
        path = cls.location(folder, encoder, location)
        return verify_file(
            path, _identity(folder, encoder), progress=progress, before_mending=lambda: check_has_videos(folder)
        )

    @staticmethod
    def location(folder: Path | str, encoder: Encoder, given: Path | str | None = None) -> Path:
        """Returns the file of the index of a folder and a model: the one that is given, or the default one."""
        return Path(given) if given is not None else default_location(Path(folder).resolve(), encoder.bundle.sha256)

    def close(self) -> None:
        """Closes the file, whichever threads use it; every later use is an `IndexStoreError`."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def update(
        self,
        *,
        finding: Finding | None = None,
        retry_failed: bool = False,
        workers: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
        on_wait: Callable[[], None] | None = None,
        on_change: Callable[[VideoChange], None] = lambda _: None,
        holds_back: HoldsBack | None = None,
    ) -> IndexReport:
        """Indexes what is new or has changed, and forgets what is gone.

        Each video is stored as soon as it is encoded: an update that is interrupted, by whatever means, loses none of
        them. If another process updates the index, this one waits, then does what is left.

        Args:
            finding: Choice of the files that are videos; the index keeps it, and None takes the one that it keeps.
                Videos that were indexed and are excluded now are forgotten.
            retry_failed: Whether to try failed videos again though they have not changed.
            workers: Decoding processes; None lets `decode_many` choose.
            progress: Called at the start and after each video.
            on_wait: Called once if another process is updating the index.
            on_change: Called after each change is stored.
            holds_back: Decision which files wait for a later update.

        Raises:
            InputError: There is no video in the folder.
            IndexStoreError: The index cannot be written; what was stored is kept.
        """
        started = time.perf_counter()
        known = self.finding
        finding = known if finding is None else finding
        plan_now = partial(
            plan_update, self.folder, self.store, retry_failed=retry_failed, finding=finding, holds_back=holds_back
        )
        plan = plan_now()
        if plan.is_empty and finding == known:
            report = plan.report()
        else:
            with self.store.sole_writer(on_wait):
                # Once more: another process may have done some of it.
                plan = plan_now()
                self.store.remember(finding)
                report = run_update(
                    plan, self.store, self.encoder, workers=workers, progress=progress, on_change=on_change
                )
        if plan.marked:
            with suppress(IndexStoreError):  # they are only of use later
                self.store.put_marks(plan.marked)
        report.total_seconds = time.perf_counter() - started
        return report

    @property
    def finding(self) -> Finding:
        """Choice of the files that are videos, as the last update was told."""
        return self.store.finding()

    def failures(self) -> list[VideoFault]:
        """Returns the fault of every video that could not be indexed, in this update or an earlier one."""
        return [video.fault for video in self.store.ledger().values() if video.status == "failed"]

    def damaged(self, fault: str) -> IndexStoreError:
        """Returns the error of an index that is damaged, with what to do about it."""
        return DamagedIndexError(self.store.path, fault)

    def tokens(self, ids: ClipIds, fault: str = "tokens that make no sense") -> tuple[ClipIds, Levels]:
        """Reads the tokens of clips.

        Args:
            ids: (N,) ids of clips.
            fault: Name of the fault if they make no sense.

        Returns:
            Ids (B,), ascending, of those of the clips that are still stored, and their tokens, a batch of B.

        Raises:
            IndexStoreError: The tokens make no sense.
        """
        try:
            found, records = self.store.fetch_tokens(ids)
        except DamagedIndexError as error:
            raise self.damaged(fault) from error
        levels = self.store.layout.unpack(records)
        if unsound(levels):
            raise self.damaged(fault)
        return found, levels

    def matrix(self, ids: ClipIds) -> ClipMatrix:
        """Reads the tokens of clips (N,) into a matrix that is ready to be scored.

        Raises:
            IndexStoreError: The tokens make no sense.
        """
        matrix = self.encoder.scoring.matrix(self.store.layout, len(ids))
        for start in range(0, len(ids), CLIPS_AT_A_TIME):
            matrix.extend(*self.store.fetch_tokens(ids[start : start + CLIPS_AT_A_TIME]))
        return matrix

    def resident_matrix(self) -> ClipScorer:
        """Returns the matrix of every clip, which stays in memory until the index changes."""
        with self._resident_lock:
            version = self.store.version()
            if self._resident is None or self._resident[0] != version:
                self._resident = None  # the old one's memory first
                self._resident = version, self.matrix(self.store.clip_ids(EVERYTHING))
            return self._resident[1]

    def known_path(self, video: Path | str) -> str | None:
        """Returns the path of a video relative to the folder, as the ledger has it; None if it lies elsewhere."""
        video = Path(video)
        # A link to a video stays what it is, as in the ledger.
        path = video.parent.resolve() / video.name
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else None


def _identity(folder: Path, encoder: Encoder) -> Identity:
    return Identity(bundle_sha256=encoder.bundle.sha256, layout=token_layout(encoder), folder=folder)


def default_location(folder: Path | str, bundle_sha256: str) -> Path:
    """Returns the default file of the index of a folder and a model, in the user's cache folder."""
    folder = Path(folder)
    name = f"{folder.name[:40]}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}-{bundle_sha256[:12]}.sqlite"
    return platformdirs.user_cache_path("hbi-infer") / "indexes" / name
