"""Captioning: a sentence for each clip, written from its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbi_infer.index.clip_tokens import ClipPlace, Clips, clips_of_video
from hbi_infer.model.encoder import BATCH_CLIPS, Encoder
from hbi_infer.options import Decoding

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What one clip of a video shows, in words.

    Attributes:
        path: Of the video.
        clip: Which of its clips, counted from 1.
        start_seconds: Where in the video it begins.
        end_seconds: Where it ends.
        text: In lower case.
        log_probability: Natural logarithm; of all tokens of the text together.
        is_complete: Whether the text came to its end before the limit of tokens.
    """

    path: Path
    clip: int
    start_seconds: float
    end_seconds: float
    text: str
    log_probability: float
    is_complete: bool

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path)}


def caption_clips(
    encoder: Encoder,
    clips: Clips,
    options: Decoding | None = None,
    *,
    known: Mapping[ClipPlace, Caption] | None = None,
) -> Iterator[tuple[ClipPlace, Caption]]:
    """A caption for each clip, written in batches across videos.

    Args:
        encoder: The model.
        clips: Of one video or of many.
        options: How to choose words.
        known: Captions of an earlier run, which are taken as they are.

    Yields:
        In the order of the clips. A batch holds the same clips whatever is known of them, so that a run which goes on
        where another stopped gives the same numbers, to the last bit.

    Raises:
        BundleError: The bundle writes no captions.
        IndexStoreError: What the index holds of a clip is damaged.
    """
    encoder.bundle.require("caption")
    return _caption(encoder, clips, options or Decoding(), known or {})


def caption_video(
    encoder: Encoder, video: Path, options: Decoding | None = None, *, index: Index | None = None
) -> list[Caption]:
    """A caption for each clip of a video.

    Args:
        encoder: The model.
        video: Any video. If the index holds it as it is now, or it is gone, nothing is decoded.
        options: How to choose words.
        index: Where to look for the video's tokens first.

    Raises:
        BundleError: The bundle writes no captions.
        InputError: There is no such video.
        VideoError: The video is not in the index and cannot be decoded.
        IndexStoreError: What the index holds of the video is damaged.

    Warns:
        IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
    """
    encoder.bundle.require("caption")  # before anything is decoded
    return [made for _, made in caption_clips(encoder, clips_of_video(encoder, video, index), options)]


def _caption(
    encoder: Encoder, clips: Clips, options: Decoding, known: Mapping[ClipPlace, Caption]
) -> Iterator[tuple[ClipPlace, Caption]]:
    for start in range(0, len(clips.places), BATCH_CLIPS):
        part = slice(start, start + BATCH_CLIPS)
        places = clips.places[part]
        if all(place in known for place in places):
            yield from ((place, known[place]) for place in places)
            continue
        batch = clips.read(part)
        if not batch.places:  # gone since
            continue
        for place, written in zip(batch.places, encoder.write_captions(batch.levels, options), strict=True):
            yield (
                place,
                known.get(place)
                or Caption(
                    path=place.path,
                    clip=place.clip,
                    start_seconds=place.start_seconds,
                    end_seconds=place.end_seconds,
                    text=encoder.tokenizer.decode(written.token_ids),
                    log_probability=written.log_probability,
                    is_complete=written.is_complete,
                ),
            )
