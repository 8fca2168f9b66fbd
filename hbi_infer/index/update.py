"""Bringing an index up to date with its folder: the plan, and its execution."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hbi_engines.operating_system import may_read
from hbi_infer.errors import BundleError, EngineError, InputError
from hbi_infer.index.content_mark import FileLook, read_mark
from hbi_infer.index.moves import find_moves
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import NO_VERSION, FileVersion, LedgerEntry, Move, VideoFault
from hbi_infer.model.encoder import BATCH_CLIPS, Encoder, encode_clips
from hbi_infer.options import VIDEOS_BY_SUFFIX, Finding
from hbi_infer.tokens.layout import PackedTokens, is_finite
from hbi_infer.tokens.levels import unsound
from hbi_infer.video.discovery import VIDEO_SUFFIXES, Found, LeftOut, look_through, summary

if TYPE_CHECKING:
    from hbi_infer.options import FrameSampling
    from hbi_infer.tokens.levels import Levels
    from hbi_infer.video.decoded_video import Clip, DecodedVideo


MARKING_SECONDS = 0.5
"""Longest time that an update spends on looking into files that seem unchanged."""


@dataclass(frozen=True, kw_only=True)
class IndexProgress:
    """The progress of an update, for a progress bar.

    Attributes:
        videos_done: Number of videos stored or failed so far.
        videos_total: Number of videos to index in this update.
        clips: Number of clips stored in this update.
        path: The video that was done last, relative to the folder; empty before the first.
    """

    videos_done: int
    videos_total: int
    clips: int
    path: str


@dataclass(frozen=True, kw_only=True)
class VideoChange:
    """One change of the index, told once it is stored.

    Attributes:
        kind: Kind of change.
        path: Path of the video, relative to the folder.
        source: Path of the video that it was moved or copied from; empty for other kinds.
        clips: Number of its clips.
        reason: Description of the fault of a partial or failed video; empty when there is none.
    """

    kind: Literal["added", "changed", "moved", "copied", "removed", "failed"]
    path: str
    source: str = ""
    clips: int = 0
    reason: str = ""


class HoldsBack(Protocol):
    """Decision whether a file is left as it is for now, because it may still be written."""

    def __call__(self, path: str, version: FileVersion | None, /) -> bool:
        """Returns whether to wait; the version is that of the file now, None if it is gone."""


@dataclass(kw_only=True)
class IndexReport:
    """The outcome of an update.

    Attributes:
        added: Number of new videos, copies of known ones among them.
        changed: Number of videos that were indexed before and were indexed again.
        moved: Number of videos that were found under another name; they were not decoded.
        removed: Number of videos that are gone.
        unchanged: Number of videos that were left alone, including those that failed before and have not changed.
        partial: Fault of each video of which only a part could be decoded; it is searchable.
        failed: Fault of each video that could not be indexed, and of each folder that could not be read.
            A video is tried again when it changes, or when it can be opened and could not before; clips in a folder
            that cannot be read are kept.
        left_out: Files and folders that are not taken for videos, sorted by path.
        clips: Number of clips stored.
        decode_seconds: Time spent decoding, summed over the decoding processes, which run beside encoding.
        wait_seconds: Time spent waiting for decoded frames: the part of decoding that delays the update.
        encode_seconds: Time spent in the video encoder.
        store_seconds: Time spent writing.
        total_seconds: Duration of the whole update.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    partial: list[VideoFault] = field(default_factory=list)
    failed: list[VideoFault] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    clips: int = 0
    decode_seconds: float = 0.0
    wait_seconds: float = 0.0
    encode_seconds: float = 0.0
    store_seconds: float = 0.0
    total_seconds: float = 0.0

    @property
    def clips_per_second(self) -> float:
        """Clips stored in a second of the whole update."""
        return self.clips / self.total_seconds if self.total_seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of an update.

    Attributes:
        added: Files to index: path -> its entry in the ledger so far.
        changed: The same for files that were indexed before.
        moved: Files that take over the tokens of others.
        removed: Paths in the ledger that are gone from the folder.
        unreadable: Fault of each file or folder that cannot be looked at.
        left_out: Files and folders that are not taken for videos.
        num_unchanged: Number of files to leave alone.
        marked: Entries of unchanged files whose mark was read now.
    """

    added: dict[Path, LedgerEntry]
    changed: dict[Path, LedgerEntry]
    moved: list[Move]
    removed: list[str]
    unreadable: list[VideoFault]
    left_out: list[LeftOut]
    num_unchanged: int
    marked: list[LedgerEntry]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.added or self.changed or self.moved or self.removed)

    def report(self) -> IndexReport:
        """Returns the report, to be filled while the plan is carried out."""
        return IndexReport(
            added=len(self.added) + sum(move.is_copy for move in self.moved),
            changed=len(self.changed),
            moved=sum(not move.is_copy for move in self.moved),
            removed=len(self.removed),
            unchanged=self.num_unchanged,
            failed=list(self.unreadable),
            left_out=self.left_out,
        )


def plan_update(
    folder: Path,
    store: SqliteStore,
    *,
    retry_failed: bool,
    finding: Finding = VIDEOS_BY_SUFFIX,
    holds_back: HoldsBack | None = None,
) -> Plan:
    """Compares the folder with the ledger.

    Args:
        folder: The folder.
        store: The index.
        retry_failed: Whether failed videos are tried again though they have not changed.
        finding: Choice of the files that are videos.
        holds_back: Decision which files are left for a later update; None holds back none. A file that takes over the
            tokens of another one is complete, and is not asked about.

    Raises:
        InputError: There is no video in the folder.
    """
    content = look_through(folder, finding)
    if not content.videos and (store.begins_anew or not content.unreadable):
        raise _no_videos(folder, content, finding)
    ledger = {} if store.begins_anew else store.ledger()
    found = {_relative(path, folder): path for path in content.videos}
    files = _compare(found, ledger, retry_failed)
    unknown = {path.relative_to(folder): reason for path, reason in content.unreadable.items()}
    missing = _missing(ledger.keys() - found.keys(), unknown, content.left_out)
    gone = {*missing, *(entry.path for entry in files.changed.values())}
    known = [entry for entry in ledger.values() if not _is_tried_again(entry, retry_failed)]
    moves = find_moves(files.added | files.changed, known, gone)
    sources = {move.source for move in moves.values() if not move.is_copy}

    def now(new: dict[Path, LedgerEntry]) -> dict[Path, LedgerEntry]:
        rest = {path: entry for path, entry in new.items() if path not in moves}
        return {path: each for path, each in rest.items() if not (holds_back and holds_back(each.path, each.version))}

    return Plan(
        added=now(files.added),
        changed=now(files.changed | files.retried),
        moved=list(moves.values()),
        removed=[path for path in missing if path not in sources and not (holds_back and holds_back(path, None))],
        unreadable=[
            VideoFault(path.as_posix(), f"cannot be read: {reason}", "not_opened") for path, reason in unknown.items()
        ],
        left_out=content.left_out,
        num_unchanged=len(found) - len(files.new),
        marked=files.marked,
    )


@dataclass
class _Files:
    """Files that are new to the index, or otherwise to be looked at: path -> entry as the file is now.

    Attributes:
        added: Files that the ledger does not know.
        changed: Files that were indexed as something else.
        retried: Files that have not changed and are tried again.
        marked: Entries in the ledger of unchanged files, with a mark that was read now.
    """

    added: dict[Path, LedgerEntry] = field(default_factory=dict)
    changed: dict[Path, LedgerEntry] = field(default_factory=dict)
    retried: dict[Path, LedgerEntry] = field(default_factory=dict)
    marked: list[LedgerEntry] = field(default_factory=list)

    @property
    def new(self) -> dict[Path, LedgerEntry]:
        """Files that are not left alone."""
        return self.added | self.changed | self.retried


def _compare(found: dict[str, Path], ledger: dict[str, LedgerEntry], retry_failed: bool) -> _Files:
    """Compares each file with its entry in the ledger.

    A file whose mark is missing, or that was renamed or the like since it was marked, is looked into. That takes no
    longer than `MARKING_SECONDS`: other such files count as unchanged until the next update.
    """
    files = _Files()
    until = time.monotonic() + MARKING_SECONDS
    for name, path in found.items():
        known, look = ledger.get(name), FileLook.at(path)
        entry = LedgerEntry(path=name, version=look.version if look else NO_VERSION)
        if known is None:
            files.added[path] = entry
        elif look and look.version != known.version:
            files.changed[path] = entry
        elif _is_tried_again(known, retry_failed) and (retry_failed or may_read(path)):
            files.retried[path] = entry
        elif look and (known.mark is None or known.mark.status_ns != look.status_ns) and time.monotonic() < until:
            mark = read_mark(path, known.version)
            if mark and known.mark and mark.digest != known.mark.digest:
                files.changed[path] = entry
            elif mark:
                files.marked.append(replace(known, mark=mark))
    return files


def _missing(names: Collection[str], unknown: Collection[Path], left_out: list[LeftOut]) -> list[str]:
    """Returns those of the names, sorted, that do not lie where nothing can be seen for now."""
    # A drive that is linked to may come back.
    gone_links = [PurePath(each.path) for each in left_out if each.reason == "linked_to_nothing"]
    return sorted(
        name
        for name in names
        if not any(map(PurePath(name).is_relative_to, unknown))
        and not any(link in PurePath(name).parents for link in gone_links)
    )


def check_has_videos(folder: Path) -> None:
    """Refuses a folder in which nothing could be a video, whatever is taken for one.

    Raises:
        InputError: There is no video in the folder.
    """
    if not look_through(folder, VIDEOS_BY_SUFFIX).videos:
        every_file = Finding(all_files=True)
        content = look_through(folder, every_file)
        if not content.videos:
            raise _no_videos(folder, content, every_file)


def _no_videos(folder: Path, content: Found, finding: Finding) -> InputError:
    """Returns the error of a folder without a video, which says what is there instead."""
    left_out = f"; left out: {summary(content.left_out)}" if content.left_out else ""
    if finding.all_files:
        return InputError(f"no videos in {folder} or below it: no file's content is one{left_out}")
    suffixes = " ".join(sorted(VIDEO_SUFFIXES))
    return InputError(
        f"no videos in {folder} or below it: looked for files that end in {suffixes}; --all-files looks at the content "
        f"of others{left_out}"
    )


def _may_pass(known: LedgerEntry) -> bool:
    """Returns whether another try may give more: of what failed, or was not cut short by its own damage."""
    return known.status == "failed" or known.problem not in (None, "damaged")


def _is_tried_again(known: LedgerEntry, retry_failed: bool) -> bool:
    """Returns whether what is known of a file is not relied on; permissions change without a change of the file."""
    return known.problem == "not_opened" or (retry_failed and _may_pass(known))


def _relative(path: Path, folder: Path) -> str:
    """Returns the path of a file in the folder as the ledger has it."""
    # By hand: of ten thousand files, `Path.relative_to` takes longer than looking at them.
    return os.fspath(path)[len(os.path.join(folder, "")) :].replace(os.sep, "/")  # noqa: PTH118


def run_update(
    plan: Plan,
    store: SqliteStore,
    encoder: Encoder,
    *,
    workers: int | None = None,
    progress: Callable[[IndexProgress], None] | None = None,
    on_change: Callable[[VideoChange], None] = lambda _: None,
) -> IndexReport:
    """Carries out a plan: other processes decode the videos, this one encodes batches across videos and stores them."""
    report = plan.report()
    if plan.moved:
        store.take_over(plan.moved)
    for move in plan.moved:
        kind: Literal["copied", "moved"] = "copied" if move.is_copy else "moved"
        on_change(VideoChange(kind=kind, path=move.entry.path, source=move.source, reason=move.entry.reason))
    store.remove(plan.removed)
    for path in plan.removed:
        on_change(VideoChange(kind="removed", path=path))
    _Run(plan, store, encoder, report, progress, on_change).run(workers)
    return report


@dataclass
class _PendingVideo:
    """A decoded video with the records (1,) and pooled vectors (1, D) of its clips encoded so far, in order."""

    record: LedgerEntry
    clips: tuple[Clip, ...]
    records: list[PackedTokens] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)


class _Run:
    """One run over videos, with the clips that are decoded but not yet encoded."""

    def __init__(
        self,
        plan: Plan,
        store: SqliteStore,
        encoder: Encoder,
        report: IndexReport,
        progress: Callable[[IndexProgress], None] | None,
        on_change: Callable[[VideoChange], None],
    ) -> None:
        self._todo = plan.added | plan.changed
        self._changed = {entry.path for entry in plan.changed.values()}
        self._on_change = on_change
        self._store = store
        self._encoder = encoder
        self._report = report
        self._progress = progress
        self._num_done = 0
        self._queue: deque[tuple[_PendingVideo, Clip]] = deque()

    def run(self, workers: int | None) -> None:
        """Decodes, encodes and stores every video."""
        self._say_progress("")
        from hbi_infer.video.pool import decode_many

        sampling = self._encoder.bundle.manifest.sampling
        if self._store.begins_anew:  # a model that cannot run must not cost the existing index
            self._try_encoder(sampling)
        decoded_videos = decode_many(list(self._todo), sampling, workers=workers)
        try:
            while True:
                with self._timed("wait_seconds"):
                    decoded = next(decoded_videos, None)
                if decoded is None:
                    break
                self._take(decoded)
                while len(self._queue) >= BATCH_CLIPS:
                    self._encode()
        finally:
            if isinstance(decoded_videos, Generator):
                decoded_videos.close()  # ends the workers
        while self._queue:
            self._encode()

    def _try_encoder(self, sampling: FrameSampling) -> None:
        """Encodes a black clip, and a grey one if black is at fault: one of them must give tokens that can be used."""
        shape = (1, sampling.max_frames, sampling.image_size, sampling.image_size, 3)
        fault = ""
        for brightness in (0, 128):
            frames = np.full(shape, brightness, np.uint8)
            levels = self._encoder.encode_video(frames, np.ones(shape[:2], np.bool_))
            self._pack(levels)
            if not (fault := unsound(levels)):
                return
        bundle = self._encoder.bundle
        raise EngineError(f"the graph {bundle.manifest.clip_graph} of {bundle.path} gives {fault}: use another bundle")

    def _take(self, decoded: DecodedVideo) -> None:
        """Queues the clips of a video; one without clips is done."""
        self._report.decode_seconds += decoded.decode_seconds
        duration = decoded.info.duration_seconds if decoded.info else None
        if duration is None and decoded.clips:
            duration = decoded.clips[-1].end_seconds
        record = replace(
            self._todo[decoded.path],
            status=decoded.status,
            reason=decoded.reason,
            problem=decoded.problem,
            duration_seconds=duration,
        )
        record = replace(record, mark=read_mark(decoded.path, record.version))
        video = _PendingVideo(record, decoded.clips)
        self._queue.extend((video, clip) for clip in decoded.clips)
        if not decoded.clips:
            self._finish(video)

    def _encode(self) -> None:
        """Encodes a batch of clips and stores the videos that are complete with it."""
        batch = [self._queue.popleft() for _ in range(min(BATCH_CLIPS, len(self._queue)))]
        with self._timed("encode_seconds"):
            (levels,) = encode_clips(self._encoder, [clip for _, clip in batch])
            records = self._pack(levels)
            with np.errstate(invalid="ignore"):  # `_finish` handles numbers that are not finite
                vectors = self._encoder.scoring.pooled(levels)
        for number, (video, _) in enumerate(batch):
            video.records.append(records[number : number + 1])
            video.vectors.append(vectors[number : number + 1])
            if len(video.records) == len(video.clips):
                self._finish(video)

    def _pack(self, levels: Levels) -> PackedTokens:
        try:
            return self._store.layout.pack(levels)
        except ValueError as exc:
            raise BundleError(
                f"the video encoder does not give the tokens that its manifest says: {exc}; export the bundle again"
            ) from exc

    def _finish(self, video: _PendingVideo) -> None:
        """Stores a video whose clips are all encoded."""
        record, clips = video.record, video.clips
        records = np.concatenate([*video.records, np.empty(0, self._store.layout.dtype)])
        vectors = np.concatenate([*video.vectors, np.empty((0, self._store.layout.width), np.float32)])
        fault = "numbers that are not finite" if not is_finite(records) else unsound(self._store.layout.unpack(records))
        if fault:
            reason = f"makes the model give {fault}"
            record = replace(record, status="failed", reason=reason, problem="not_finite")
            clips, records, vectors = (), records[:0], vectors[:0]
        with self._timed("store_seconds"):
            self._store.put(record, clips, records, vectors)
        if record.status != "ok":
            outcome = self._report.partial if record.status == "partial" else self._report.failed
            outcome.append(record.fault)
        self._report.clips += len(clips)
        self._num_done += 1
        self._say_progress(record.path)
        kind: Literal["added", "changed", "failed"] = "changed" if record.path in self._changed else "added"
        kind = "failed" if record.status == "failed" else kind
        self._on_change(VideoChange(kind=kind, path=record.path, clips=len(clips), reason=record.reason))

    def _say_progress(self, path: str) -> None:
        if self._progress is not None:
            clips = self._report.clips
            self._progress(
                IndexProgress(videos_done=self._num_done, videos_total=len(self._todo), clips=clips, path=path)
            )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to this field of the report."""
        started = time.perf_counter()
        yield
        setattr(self._report, name, getattr(self._report, name) + time.perf_counter() - started)
