"""What decoding a video gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOT_OPENED, TOO_SLOW, CRASHED = "cannot be opened", "took longer than", "crashed the decoder"
"""How the reasons begin that may pass while the file stays as it is."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, measured on its packets and first frame, not read from its header.

    Attributes:
        width: In pixels as displayed: after rotation, with square pixels.
        height: In pixels as displayed.
        duration_seconds: From the first frame to the end of the last; None for a single frame.
        frames_per_second: The mean rate (the stated one where the file has no timestamps); None for a single frame.
        rotation_degrees: How far a player turns the stored frames clockwise: 0, 90, 180 or 270.
        codec: FFmpeg's name of it, such as `h264`.
        container: FFmpeg's name of it, such as `mp4` or `matroska`.
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

    Seconds count from the video's first frame.

    Attributes:
        start_seconds: Where the clip starts.
        end_seconds: Where it ends.
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
        path: The path that was asked for.
        status: `ok`; `partial`: something was wrong, and `clips` hold what could be read; `failed`: no clips.
        reason: What was wrong, to be read after the file's name ("has no video stream"); empty when ok.
        info: None when failed.
        clips: In order of time.
        decode_seconds: How long decoding took, in the process that did it; 0 if that process died of it.
    """

    path: Path
    status: Literal["ok", "partial", "failed"]
    reason: str
    info: VideoInfo | None
    clips: tuple[Clip, ...]
    decode_seconds: float = field(default=0.0, compare=False)
