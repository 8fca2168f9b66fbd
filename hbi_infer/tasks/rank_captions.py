"""Ranking sentences by how well they say what a video shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hbi_infer.errors import InputError
from hbi_infer.index.clip_tokens import VideoTokens
from hbi_infer.model.encoder import Encoder
from hbi_infer.tasks.texts import EncodedTexts
from hbi_infer.tokens.levels import joined
from hbi_infer.tokens.similarity import top


@dataclass(frozen=True, kw_only=True)
class CaptionMatch:
    """One caption for a video.

    Attributes:
        rank: Place in the order of captions, from 1.
        score: Higher is better.
        caption: The caption as given.
        start_seconds: Time in the video at which the clip that fits the caption best begins.
        end_seconds: Time at which that clip ends.
    """

    rank: int
    score: float
    caption: str
    start_seconds: float
    end_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self)


def rank_captions(
    encoder: Encoder, video: VideoTokens, captions: EncodedTexts, *, top_k: int | None = None
) -> list[CaptionMatch]:
    """Orders B captions by how well they fit a video. A caption's score is that of the clip that it fits best.

    Args:
        encoder: The model.
        video: N clips of one video.
        captions: B captions.
        top_k: Largest number of results; None ranks all.

    Raises:
        InputError: `top_k` is less than 1.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be at least 1")
    # (B, N)
    scores = encoder.similarity(captions.levels, joined([clip.levels for clip in video.clips]))
    best_clip = scores.argmax(axis=1)
    return [
        CaptionMatch(
            rank=rank,
            score=float(scores[row, best_clip[row]]),
            caption=captions.texts[row],
            start_seconds=video.clips[best_clip[row]].start_seconds,
            end_seconds=video.clips[best_clip[row]].end_seconds,
        )
        for rank, row in enumerate(top(scores.max(axis=1), top_k or len(captions)), start=1)
    ]
