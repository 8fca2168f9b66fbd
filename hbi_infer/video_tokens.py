"""The tokens of one video: out of an index that holds them, or from the video itself."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.encoder import Encoder, encode_clips
from hbi_infer.errors import IndexStoreError, InputError, VideoError
from hbi_infer.retrieve import decode_clips
from hbi_infer.sqlite_file import damaged
from hbi_infer.tokens import Levels, LevelTokens, item

if TYPE_CHECKING:
    from hbi_infer.index import Index
    from hbi_infer.store import VideoRecord

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
        if not video.is_file():
            raise InputError(f"there is no file {video}, and no index that holds it: give a video")
        return _from_video(encoder, video)
    if not _has_changed(video, known):
        return _from_index(index, known.path)
    try:
        return _from_video(encoder, video)
    except VideoError as error:
        warnings.warn(
            f"{error}. It has changed since it was indexed: what was indexed is explained",
            IndexedFileChangedWarning,
            stacklevel=3,
        )
        return _from_index(index, known.path)


def _record(index: Index, video: Path) -> VideoRecord | None:
    """What the index knows of a video; None if it has no tokens of it."""
    path = index.known_path(video)
    record = index.store.ledger().get(path) if path else None
    return record if record and record.status != "failed" else None


def _has_changed(video: Path, known: VideoRecord) -> bool:
    try:
        status = video.stat()
    except OSError:  # gone: what is known is all there is
        return False
    return (status.st_size, status.st_mtime_ns) != (known.size_bytes, known.modified_ns)


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
