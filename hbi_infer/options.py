"""Options: one frozen dataclass for each task. A default lives here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from hbi_infer.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """How a video becomes the frames that a model sees; a bundle says it, training and serving share it.

    Attributes:
        frames_per_second: Frames taken for each second of video (the rate r of the published setting, 1).
        max_frames: F, the most frames of one clip; a clip that gives more keeps F of them, evenly spread.
        image_size: H = W in pixels: the short side is scaled to it, then the centre is cropped.
        clip_seconds: A longer video is cut into clips of this many seconds, so that a result names a moment.
    """

    frames_per_second: float = 1.0
    max_frames: int = 12
    image_size: int = 224
    clip_seconds: float = 12.0

    def __post_init__(self) -> None:
        for name in ("frames_per_second", "max_frames", "image_size", "clip_seconds"):
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"{name} is {value}; it must be greater than 0")
