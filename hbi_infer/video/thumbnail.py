"""Small pictures of videos: the frame that is shown at a time, as JPEG, made in a worker process.

The process goes on from one video to the next, for starting it takes longer than a picture does. On Linux it is
confined before the first (see `hbi_infer.video.sandbox`), and is given each video open.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from hbi_engines.operating_system import limit_memory, set_alarm
from hbi_infer.errors import VideoError
from hbi_infer.video.opened_files import opened, status
from hbi_infer.video.packets import READ_ERRORS, container_start_seconds, in_words, open_video, scan
from hbi_infer.video.reader import read_picture
from hbi_infer.video.rehearsal import rehearse
from hbi_infer.video.sandbox import confine
from hbi_infer.video.scaling import FrameScaler
from hbi_infer.worker_process import Answer, Tell

JPEG_QUALITY = 80
EXACT_BYTES = 8 * 2**20
"""Size of the files that are read as a whole, so that their frames have the times that the index knows."""

_SAME_SECONDS = 1e-3
_MOST_FRAMES = 2000
"""Number of frames that are decoded from a keyframe on."""


def read_thumbnail(path: Path | str, seconds: float, *, longest_side: int) -> NDArray[np.uint8]:
    """Decodes the frame that is shown at a time, or the nearest one that can be.

    A small file is read as a whole; in a large one the decoder begins at the keyframe before, as players do.

    Args:
        path: The file.
        seconds: Time in the video.
        longest_side: Width or height in pixels, whichever is larger.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        VideoError: No frame can be decoded.
    """
    path = Path(path)
    try:
        if status(path).st_size > EXACT_BYTES:
            try:
                return _sought(path, seconds, longest_side)
            except (VideoError, *READ_ERRORS):
                pass  # without timestamps, or damaged there: all of it is looked at
        times = scan(path, lambda: None).clock.frame_times_seconds
    except (VideoError, *READ_ERRORS) as error:
        raise VideoError(f"{str(path)!r} {in_words(error)}") from error
    position = max(int(np.searchsorted(times, seconds + _SAME_SECONDS)) - 1, 0)
    return read_picture(path, float(times[position]), longest_side=longest_side)


def _sought(path: Path, seconds: float, longest_side: int) -> NDArray[np.uint8]:
    """Decodes from the keyframe before a time."""
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        begin = container_start_seconds(container)
        container.seek(round((begin + seconds) * av.time_base), backward=True)
        frame = _shown_at(container, stream, begin + seconds)
        aspect = float(stream.sample_aspect_ratio or 1)
        scaler = FrameScaler(longest_side, fit="pad")
        return scaler.whole(frame, pixel_aspect=aspect if 0.25 <= aspect <= 4 else 1.0)


def _shown_at(container: InputContainer, stream: VideoStream, seconds: float) -> VideoFrame:
    """Returns the last frame that begins at a time or before, on the container's clock."""
    best: VideoFrame | None = None
    for number, frame in enumerate(container.decode(stream)):
        if frame.time is None or number == _MOST_FRAMES:
            raise VideoError("does not say when its frames are shown")
        if frame.time > seconds + _SAME_SECONDS:
            break
        if not frame.is_corrupt:
            best = frame
    if best is None:
        raise VideoError("has no frame that can be decoded there")
    return best


@cache
def _prepare(memory_bytes: int) -> None:
    """Bounds and confines this process, before its first video."""
    av.logging.set_level(None)
    rehearse(with_photo=True)
    limit_memory(memory_bytes)
    confine()


def work(job: dict[str, Any], _content: bytes, _tell: Tell) -> Answer:
    """Makes one picture in a worker process.

    Args:
        job: The path, the time in seconds, the longest side in pixels, the limits of time and memory, and the
            descriptor of the file where it is handed over open.

    Returns:
        Width and height, and the JPEG.
    """
    _prepare(job["memory_bytes"])
    set_alarm(job["limit_seconds"])
    with opened(job["path"], job.get("descriptor")):
        picture = read_thumbnail(job["path"], job["seconds"], longest_side=job["longest_side"])
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    set_alarm(0)
    height, width = picture.shape[:2]
    return Answer({"width": width, "height": height}, [memoryview(file.getvalue())])
