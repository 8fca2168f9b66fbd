"""The result of decoding a video: its clips, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hbi_infer.video.sampling import Stretch

Problem: TypeAlias = Literal["not_opened", "damaged", "too_large", "too_slow", "crashed", "not_finite"]
"""Kind of problem with a video: the system refuses to open it, its contents are faulty, it needs more memory than it
may, the decoder took too long or died, or the model gave numbers that are not finite. All but "damaged" may pass while
the file stays the same."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video, measured on its packets and first frame, not read from its header.

    Attributes:
        width: Width in pixels as displayed: after rotation, with square pixels.
        height: Height in pixels as displayed.
        duration_seconds: Time at which the last frame ends; None for a single frame if the file does not say.
        frames_per_second: Mean rate (the stated one where the file has no timestamps); None for a single frame.
        rotation_degrees: How far a player turns the stored frames clockwise: 0, 90, 180 or 270.
        codec: FFmpeg's name of the codec, such as `h264`.
        container: FFmpeg's name of the container, such as `mp4` or `matroska`.
    """

    width: int
    height: int
    duration_seconds: float | None
    frames_per_second: float | None
    rotation_degrees: int
    codec: str
    container: str


@dataclass(frozen=True)
class Clip:
    """The frames of one stretch of a video; F is the sampling's `max_frames`, H = W its `image_size`.

    Seconds count from the start of the container; see `hbi_infer.video.clock`.

    Attributes:
        start_seconds: Time of its first frame.
        end_seconds: Time at which its last frame ends: the next clip begins, or the video is over.
        frames: (F, H, W, 3) uint8, RGB; zeros where masked.
        timestamps_seconds: (F,) float64, ascending; nan where masked.
        mask: (F,) bool, K >= 1 times True, then False.
    """

    start_seconds: float
    end_seconds: float
    frames: NDArray[np.uint8]
    timestamps_seconds: NDArray[np.float64]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class DecodedVideo:
    """A video as a model sees it, or why there is none.

    Attributes:
        path: Path that was asked for.
        status: `ok`; `partial`: something was wrong, and `clips` hold what could be read; `failed`: no clips.
        reason: Description of the problem, to be read after the file's name ("has no video stream"); empty when ok.
        info: Properties of the video; None when failed.
        clips: Clips in order of time.
        decode_seconds: Time that decoding took, in the process that did it; 0 if that process died of it.
        problem: Kind of problem that `reason` tells; None when ok.
        stretch: Part of the video that was asked for; None for the whole video.
    """

    path: Path
    status: Literal["ok", "partial", "failed"]
    reason: str
    info: VideoInfo | None
    clips: tuple[Clip, ...]
    decode_seconds: float = field(default=0.0, compare=False)
    problem: Problem | None = None
    stretch: Stretch | None = None


def cut_short(reason: str, end_seconds: float) -> str:
    """Returns the reason why a video is partial whose clips were decoded up to a time, and no further."""
    return f"{reason}: only the first {end_seconds:.0f} s of it were kept"
