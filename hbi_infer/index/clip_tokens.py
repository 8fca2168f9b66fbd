"""The tokens of clips: of one video, from an index that holds it or from the video itself, and of a whole index."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import is_file
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import ClipIds, FileVersion, LedgerEntry
from hbi_infer.model.encoder import Encoder, encode_clips
from hbi_infer.options import EVERYTHING, Filter, FrameSampling
from hbi_infer.tokens.levels import Levels, item, joined, some, unsound

if TYPE_CHECKING:
    from hbi_infer.video.decoded_video import DecodedVideo

Source: TypeAlias = Literal["index", "video"]


class IndexedFileChangedWarning(UserWarning):
    """A video has changed since it was indexed and cannot be read any more; its indexed tokens are used."""


@dataclass(frozen=True, kw_only=True)
class ClipTokens:
    """The tokens of one clip.

    Attributes:
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        frame_seconds: (F,) float64, the time of each frame in the video; nan where there is none.
        levels: Its tokens, a batch of one.
    """

    start_seconds: float
    end_seconds: float
    frame_seconds: npt.NDArray[np.float64]
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class VideoTokens:
    """The tokens of a video.

    Attributes:
        path: Path of the video, as given.
        source: Where the tokens come from: the "index", or the "video", decoded and encoded.
        clips: Its clips in order, at least one.
        version: The file that the tokens were made of; None if it is gone.
        indexed_path: Path under which the index holds clips of this video, whether its tokens come from there or not;
            None if it holds none.
    """

    path: Path
    source: Source
    clips: tuple[ClipTokens, ...]
    version: FileVersion | None
    indexed_path: str | None


@dataclass(frozen=True, kw_only=True)
class ClipPlace:
    """The place of a clip in a video.

    Attributes:
        path: Path of the video.
        clip: Number of the clip in the video, counted from 1.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        file_version: The file that its tokens were made of, as text; empty if the file is gone.
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
        places: (B,) the clips' places.
        levels: Their tokens, a batch of B.
    """

    places: tuple[ClipPlace, ...]
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips of one video or of many, whose tokens are read when they are asked for.

    Attributes:
        places: (N,) the clips' places, in order of path and time.
        read: Reads the tokens of a slice of the places, without clips that are gone since.
        source: Where the tokens come from.
    """

    places: tuple[ClipPlace, ...]
    read: Callable[[slice], ClipBatch]
    source: Source

    def batches(self, size: int) -> Iterator[ClipBatch]:
        """Reads the tokens of all N clips, `size` at a time."""
        for start in range(0, len(self.places), size):
            batch = self.read(slice(start, start + size))
            if batch.places:
                yield batch


def clips_of_video(tokens: VideoTokens) -> Clips:
    """Returns the N clips of a video whose tokens are in memory."""
    levels = joined([clip.levels for clip in tokens.clips])
    places = tuple(
        ClipPlace(
            path=tokens.path,
            clip=number,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            file_version=str(tokens.version or ""),
        )
        for number, clip in enumerate(tokens.clips, start=1)
    )

    def read(part: slice) -> ClipBatch:
        return ClipBatch(places=places[part], levels=some(levels, part))

    return Clips(places=places, read=read, source=tokens.source)


def clips_of_index(index: FolderIndex, where: Filter = EVERYTHING) -> Clips:
    """Returns the N clips of all indexed videos that pass the filter; none is decoded.

    Reading them raises IndexStoreError where the index is damaged.
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
                file_version=str(known.version) if known else "",
            )
        )

    def read(part: slice) -> ClipBatch:
        wanted = ids[part]
        found, levels = index.tokens(wanted)
        # The tokens come in the order of the ids.
        rows = np.searchsorted(found, wanted[np.isin(wanted, found)])
        kept = [place for place, clip_id in zip(places[part], wanted, strict=True) if clip_id in found]
        return ClipBatch(places=tuple(kept), levels=some(levels, rows))

    return Clips(places=tuple(places), read=read, source="index")


def video_tokens(encoder: Encoder, video: Path | str, index: FolderIndex | None = None) -> VideoTokens:
    """Returns the tokens of a video: the one source of them for every task.

    Nothing is decoded if the index holds the video as it is now, or if the file is gone. Tokens of a file that has
    changed since are used only where it cannot be read any more. All numbers are finite.

    Args:
        encoder: The model.
        video: Path of the video.
        index: The index to look in first.

    Returns:
        The tokens of its N clips.

    Raises:
        InputError: There is no such file, and no index that holds it.
        VideoError: The video is not in the index and cannot be decoded, or the model gives no finite numbers for it.
        IndexStoreError: The index is damaged where it holds the video.

    Warns:
        IndexedFileChangedWarning: The video has changed and cannot be read.
    """
    video = Path(video)
    known = _entry(index, video) if index else None
    if index is None or known is None:
        if not is_file(video):
            raise InputError(f"there is no file {video}, and no index that holds it: give a video")
        return _from_video(encoder, video, None)
    if not known.has_changed(video):
        return _from_index(index, video, known)
    try:
        return _from_video(encoder, video, known.path)
    except VideoError as error:
        warnings.warn(
            f"{error}. It has changed since it was indexed: what was indexed is used",
            IndexedFileChangedWarning,
            stacklevel=3,
        )
        return _from_index(index, video, known)


def indexed_tokens(index: FolderIndex, path: str) -> VideoTokens:
    """Returns the tokens of a video as an index holds them, whatever has become of the file; nothing is decoded.

    Args:
        index: The index.
        path: Path of the video as the index has it, relative to its folder.

    Returns:
        The tokens of its N clips.

    Raises:
        InputError: The index holds no clips of it.
        IndexStoreError: The index is damaged where it holds the video.
    """
    entry = index.store.entry(path)
    if entry is None or entry.status == "failed":
        raise InputError(f"the index holds no clips of {path}: give a video that is indexed")
    return _from_index(index, index.folder / path, entry)


def photo_tokens(encoder: Encoder, path: Path | str, *, timeout_seconds: float) -> VideoTokens:
    """Decodes a picture in a worker process, as `video_tokens` does; what is no picture is refused.

    Args:
        encoder: The model.
        path: The file.
        timeout_seconds: How long decoding may take.

    Returns:
        The tokens of its one clip.

    Raises:
        VideoError: It is no picture that can be read, or the model gives no finite numbers for it.
    """
    from hbi_infer.video.pool import decode_photo

    path = Path(path)
    decoded = decode_photo(path, encoder.bundle.manifest.sampling, timeout_seconds=timeout_seconds)
    if decoded.status == "failed":
        raise VideoError(f"the picture {decoded.reason}: give a JPEG, PNG or WebP picture")
    return _encoded(encoder, path, decoded, version=None, indexed_path=None)


def _entry(index: FolderIndex, video: Path) -> LedgerEntry | None:
    """Returns the ledger's entry of a video; None if the index has no tokens of it."""
    path = index.known_path(video)
    entry = index.store.entry(path) if path else None
    return entry if entry and entry.status != "failed" else None


def _from_index(index: FolderIndex, video: Path, known: LedgerEntry) -> VideoTokens:
    fault = f"the tokens of {known.path} make no sense"
    ids, levels = index.tokens(index.store.clip_ids_of(known.path), fault)
    if not len(ids):
        raise index.damaged(fault)
    return VideoTokens(
        path=video,
        source="index",
        version=known.version,
        indexed_path=known.path,
        clips=tuple(
            ClipTokens(
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                frame_seconds=clip.frame_seconds,
                levels=item(levels, row),
            )
            for row, clip in enumerate(index.store.clips(ids.tolist()))
        ),
    )


def _decoded(video: Path, sampling: FrameSampling) -> DecodedVideo:
    """Decodes a video, or a picture, which is a clip of one frame."""
    from hbi_infer.video.content import is_photo
    from hbi_infer.video.pool import decode_photo
    from hbi_infer.video.reader import decode

    try:
        is_picture = is_photo(video)
    except OSError:  # decoding says what is wrong
        is_picture = False
    decoded = decode_photo(video, sampling) if is_picture else decode(video, sampling)
    if decoded.status == "failed":
        kind = "JPEG, PNG or WebP picture, or a video" if is_picture else "video that can be played"
        raise VideoError(f"{video} {decoded.reason}: give a {kind}")
    return decoded


def _from_video(encoder: Encoder, video: Path, indexed_path: str | None) -> VideoTokens:
    version = FileVersion.of(video)  # before it is decoded: a later change is then another version
    decoded = _decoded(video, encoder.bundle.manifest.sampling)
    return _encoded(encoder, video, decoded, version=version, indexed_path=indexed_path)


def _encoded(
    encoder: Encoder, video: Path, decoded: DecodedVideo, *, version: FileVersion | None, indexed_path: str | None
) -> VideoTokens:
    batches = list(encode_clips(encoder, decoded.clips))
    if fault := next(filter(None, map(unsound, batches)), ""):
        raise VideoError(
            f"{video} makes the model give {fault} in its graph {encoder.bundle.manifest.clip_graph}: give another "
            "video, or bundle"
        )
    parts = [item(levels, row) for levels in batches for row in range(len(next(iter(levels.values()))))]
    return VideoTokens(
        path=video,
        source="video",
        version=version,
        indexed_path=indexed_path,
        clips=tuple(
            ClipTokens(
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                frame_seconds=clip.timestamps_seconds,
                levels=levels,
            )
            for clip, levels in zip(decoded.clips, parts, strict=True)
        ),
    )
