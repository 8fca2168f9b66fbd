"""The tokens of clips: of one video, out of an index that holds it or from the video itself, and of a whole index."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import IndexStoreError, InputError, VideoError
from hbi_infer.files import is_file
from hbi_infer.index.sqlite_file import damaged
from hbi_infer.index.store import EVERYTHING, ClipIds, Filter
from hbi_infer.model.encoder import Encoder, encode_clips
from hbi_infer.tasks.search import decode_clips
from hbi_infer.tokens.levels import Levels, LevelTokens, item, joined, some

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index
    from hbi_infer.index.store import VideoRecord

Source: TypeAlias = Literal["index", "video"]


class IndexedFileChangedWarning(UserWarning):
    """A video has changed since it was indexed and cannot be read any more; what was indexed is used."""


@dataclass(frozen=True, kw_only=True)
class ClipTokens:
    """The tokens of one clip.

    Attributes:
        start_seconds: Where in the video it begins.
        end_seconds: Where it ends.
        frame_seconds: (F,) float64, the time of each frame in the video; nan where there is none.
        levels: A batch of one.
    """

    start_seconds: float
    end_seconds: float
    frame_seconds: npt.NDArray[np.float64]
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class VideoTokens:
    """The tokens of a video.

    Attributes:
        source: Where they come from: the "index", or the "video", decoded and encoded.
        clips: In order, at least one.
    """

    source: Source
    clips: tuple[ClipTokens, ...]


@dataclass(frozen=True, kw_only=True)
class ClipPlace:
    """Which clip of which video.

    Attributes:
        path: Of the video.
        clip: Which of its clips, counted from 1.
        start_seconds: Where in the video it begins.
        end_seconds: Where it ends.
        file_version: Another text once the file has changed; empty if the file is gone.
    """

    path: Path
    clip: int
    start_seconds: float
    end_seconds: float
    file_version: str


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """The tokens of B clips of any videos.

    Attributes:
        places: (B,) which clips they are.
        levels: A batch of B.
    """

    places: tuple[ClipPlace, ...]
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips of one video or of many, whose tokens are read when they are asked for.

    Attributes:
        places: (N,) in order of path and time.
        read: Which of the places -> their tokens, without clips that are gone since.
        source: Where the tokens come from.
    """

    places: tuple[ClipPlace, ...]
    read: Callable[[slice], ClipBatch]
    source: Source

    def batches(self, size: int) -> Iterator[ClipBatch]:
        """All of them, `size` at a time."""
        for start in range(0, len(self.places), size):
            batch = self.read(slice(start, start + size))
            if batch.places:
                yield batch


def clips_of_video(encoder: Encoder, video: Path, index: Index | None = None) -> Clips:
    """The clips of a video; see `video_tokens`, which may decode it."""
    tokens = video_tokens(encoder, video, index)
    levels = joined([clip.levels for clip in tokens.clips])
    version = _version(video)
    places = tuple(
        ClipPlace(
            path=video,
            clip=number,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            file_version=version,
        )
        for number, clip in enumerate(tokens.clips, start=1)
    )

    def read(part: slice) -> ClipBatch:
        return ClipBatch(places=places[part], levels=some(levels, part))

    return Clips(places=places, read=read, source=tokens.source)


def clips_of_index(index: Index, where: Filter = EVERYTHING) -> Clips:
    """The clips of every indexed video that passes the filter; none is decoded.

    Reading them raises IndexStoreError where what the index holds is damaged.
    """
    store = index.store
    ledger = store.ledger()
    stored = sorted(store.clips(store.clip_ids(where).tolist()), key=lambda clip: (clip.path, clip.clip_id))
    ids: ClipIds = np.array([clip.clip_id for clip in stored], np.int64)
    places: list[ClipPlace] = []
    number = 0
    for place, clip in enumerate(stored):
        number = number + 1 if place and stored[place - 1].path == clip.path else 1
        known = ledger.get(clip.path)
        places.append(
            ClipPlace(
                path=index.folder / clip.path,
                clip=number,
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                file_version=_known_version(known) if known else "",
            )
        )

    def read(part: slice) -> ClipBatch:
        wanted = ids[part]
        found, records = store.fetch_tokens(wanted)
        # What is found comes in the order of the ids.
        rows = np.searchsorted(found, wanted[np.isin(wanted, found)])
        levels = some(store.layout.unpack(records), rows)
        if not all(map(_is_sound, levels.values())):
            raise IndexStoreError(damaged(store.path, "tokens that make no sense"))
        kept = [place for place, clip_id in zip(places[part], wanted, strict=True) if clip_id in found]
        return ClipBatch(places=tuple(kept), levels=levels)

    return Clips(places=tuple(places), read=read, source="index")


def video_tokens(encoder: Encoder, video: Path, index: Index | None) -> VideoTokens:
    """The tokens of a video.

    If the index holds the video as it is now, or the file is gone, nothing is decoded. Tokens of a file that has
    changed since are used only where it cannot be read any more.

    Raises:
        VideoError: The video is not in the index and cannot be decoded.
        IndexStoreError: What the index holds of the video is damaged.

    Warns:
        IndexedFileChangedWarning: The video has changed and cannot be read.
    """
    known = _record(index, video) if index else None
    if index is None or known is None:
        if not is_file(video):
            raise InputError(f"there is no file {video}, and no index that holds it: give a video")
        return _from_video(encoder, video)
    if not _has_changed(video, known):
        return _from_index(index, known.path)
    try:
        return _from_video(encoder, video)
    except VideoError as error:
        warnings.warn(
            f"{error}. It has changed since it was indexed: what was indexed is used",
            IndexedFileChangedWarning,
            stacklevel=3,
        )
        return _from_index(index, known.path)


def _record(index: Index, video: Path) -> VideoRecord | None:
    """What the index knows of a video; None if it has no tokens of it."""
    path = index.known_path(video)
    record = index.store.ledger().get(path) if path else None
    return record if record and record.status != "failed" else None


def _version(video: Path) -> str:
    try:
        status = video.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _known_version(known: VideoRecord) -> str:
    return f"{known.size_bytes} {known.modified_ns}"


def _has_changed(video: Path, known: VideoRecord) -> bool:
    return _version(video) not in (_known_version(known), "")  # gone: what is known is all there is


def _from_index(index: Index, path: str) -> VideoTokens:
    store = index.store
    ids, records = store.fetch_tokens(store.clip_ids_of(path))
    levels = store.layout.unpack(records)
    if not len(ids) or not all(map(_is_sound, levels.values())):
        raise IndexStoreError(damaged(store.path, f"the tokens of {path} make no sense"))
    return VideoTokens(
        source="index",
        clips=tuple(
            ClipTokens(
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                frame_seconds=clip.frame_seconds,
                levels=item(levels, row),
            )
            for row, clip in enumerate(store.clips(ids.tolist()))
        ),
    )


def _from_video(encoder: Encoder, video: Path) -> VideoTokens:
    clips = decode_clips(encoder, video)
    batches = list(encode_clips(encoder, clips))
    if not all(_is_sound(level) for levels in batches for level in levels.values()):
        raise VideoError(f"{video} makes the model give numbers that are not finite: give another video")
    parts = [item(levels, row) for levels in batches for row in range(len(next(iter(levels.values()))))]
    return VideoTokens(
        source="video",
        clips=tuple(
            ClipTokens(
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                frame_seconds=clip.timestamps_seconds,
                levels=levels,
            )
            for clip, levels in zip(clips, parts, strict=True)
        ),
    )


def _is_sound(level: LevelTokens) -> bool:
    """Whether every number is finite, no weight negative, each item has a real token and each slot exists."""
    weights = level.weights
    is_in_order = np.isfinite(level.tokens).all() and np.isfinite(weights).all() and (weights >= 0).all()
    slots_exist = level.slots is None or bool((level.slots < weights.shape[1]).all())
    return bool(is_in_order and (weights > 0).any(axis=1).all() and slots_exist)
