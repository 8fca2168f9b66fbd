"""Captioning: a sentence for each clip, written from its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbi_infer.index.clip_tokens import ClipPlace, Clips
from hbi_infer.model.encoder import BATCH_CLIPS, Encoder
from hbi_infer.model.familiarity import familiarity_of
from hbi_infer.options import Decoding
from hbi_infer.tokens.familiarity import unfamiliar


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence that says what one clip of a video shows.

    Attributes:
        path: Path of the video.
        clip: Number of the clip in the video, counted from 1.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        text: The sentence, in lower case.
        log_probability: Natural logarithm of the probability of all tokens of the text together.
        is_complete: Whether the text came to its end before the limit of tokens.
        unfamiliar: Whether the clip is unlike all that the model was trained on, so that the text is not to be relied
            on; see `hbi_infer.tokens.familiarity`. False if the bundle does not know.
    """

    path: Path
    clip: int
    start_seconds: float
    end_seconds: float
    text: str
    log_probability: float
    is_complete: bool
    unfamiliar: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path)}


def caption_clips(
    encoder: Encoder,
    clips: Clips,
    options: Decoding | None = None,
    *,
    known: Mapping[ClipPlace, Caption] | None = None,
) -> Iterator[tuple[ClipPlace, Caption]]:
    """Writes a caption for each of N clips, in batches across videos.

    Args:
        encoder: The model.
        clips: N clips of one video or of many.
        options: How to choose words.
        known: Captions of an earlier run, which are taken as they are.

    Yields:
        Places and captions in the order of the clips. A batch holds the same clips whatever is known of them, so that
        a run which goes on where another stopped gives the same numbers, to the last bit.

    Raises:
        BundleError: The bundle writes no captions.
        IndexStoreError: The index is damaged where it holds a clip.
    """
    encoder.bundle.require("caption")
    return _caption(encoder, clips, options or Decoding(), known or {})


def _caption(
    encoder: Encoder, clips: Clips, options: Decoding, known: Mapping[ClipPlace, Caption]
) -> Iterator[tuple[ClipPlace, Caption]]:
    familiarity = familiarity_of(encoder.bundle)
    for start in range(0, len(clips.places), BATCH_CLIPS):
        part = slice(start, start + BATCH_CLIPS)
        places = clips.places[part]
        if all(place in known for place in places):
            yield from ((place, known[place]) for place in places)
            continue
        batch = clips.read(part)
        if not batch.places:  # gone since
            continue
        strange = unfamiliar(familiarity, batch.levels)
        made = encoder.write_captions(batch.levels, options)
        for place, written, is_strange in zip(batch.places, made, strange.tolist(), strict=True):
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
                    unfamiliar=is_strange,
                ),
            )
