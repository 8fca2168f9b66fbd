"""A picture file as a video of one frame: JPEG, PNG or WebP, turned upright and in sRGB.

Pillow reads it, which is told which formats to take, in a worker process like any video.
"""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import Clip, DecodedVideo, VideoInfo
from hbi_infer.video.opened_files import opened_file
from hbi_infer.video.packets import MAX_PIXELS, READ_ERRORS, check_file, check_size, in_words, problem_of
from hbi_infer.video.scaling import FrameScaler

FORMATS = ("JPEG", "PNG", "WEBP")
_ERRORS = (*READ_ERRORS, SyntaxError, EOFError)
"""Errors that Pillow raises for damaged files; `SyntaxError` for a PNG whose chunks are broken."""
_CLOCKWISE_DEGREES = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
"""Orientation of EXIF -> degrees, clockwise, by which a viewer turns the picture."""
_ORIENTATION = 0x0112


def read_photo(path: Path | str, sampling: FrameSampling) -> DecodedVideo:
    """Decodes a picture as a video of one clip with one frame. A bad file gives status `failed`, never an exception.

    Args:
        path: The file.
        sampling: Size of frames, and how many places for them a clip has.
    """
    path = Path(path)
    started = time.perf_counter()
    try:
        check_file(path)
        info, square = _read(path, FrameScaler.of(sampling))
    except Image.DecompressionBombError:
        reason = f"has more than {MAX_PIXELS // 10**6} million pixels"
        return DecodedVideo(path, "failed", reason, None, (), problem="too_large")
    except (VideoError, *_ERRORS) as error:
        return DecodedVideo(path, "failed", _in_words(error), None, (), problem=problem_of(error))
    images = np.zeros((sampling.max_frames, sampling.image_size, sampling.image_size, 3), np.uint8)
    timestamps = np.full(sampling.max_frames, np.nan)
    images[0], timestamps[0] = square, 0.0
    clip = Clip(0.0, 0.0, images, timestamps, ~np.isnan(timestamps))
    return DecodedVideo(path, "ok", "", info, (clip,), time.perf_counter() - started)


def _read(path: Path, scaler: FrameScaler) -> tuple[VideoInfo, NDArray[np.uint8]]:
    """Returns the properties of a picture, and its square (H, W, 3) uint8."""
    from av.video.frame import VideoFrame

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        file = cast("IO[bytes]", opened_file(path)) or path
        with Image.open(file, formats=FORMATS) as stored:
            check_size(*stored.size, "has")
            degrees = _CLOCKWISE_DEGREES.get(stored.getexif().get(_ORIENTATION, 1), 0)
            kind = str(stored.format).lower()
            image = _in_srgb(ImageOps.exif_transpose(stored))
    frame = VideoFrame.from_ndarray(np.array(image), format="rgb24")
    return VideoInfo(image.width, image.height, None, None, degrees, kind, kind), scaler.square(frame)


def _in_srgb(image: Image.Image) -> Image.Image:
    """Returns a picture in sRGB; what is transparent lies on white, as in videos."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = _on_white(image.convert("RGBA"))
    return (_converted(image, profile) if profile else image).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Lays a picture with opacity on white; an opacity that is 0 everywhere counts as unused."""
    if image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    sheet = Image.new("RGBA", image.size, "white")
    sheet.alpha_composite(image)
    return sheet.convert("RGB")


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    """Returns a picture converted from the colours of its profile; as it is if the profile cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return converted or image


def _in_words(error: BaseException) -> str:
    """Returns why a picture cannot be read, without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "is no JPEG, PNG or WebP picture that can be read here"
    if isinstance(error, VideoError | MemoryError | PermissionError):
        return in_words(error)
    return f"is damaged or cut short ({in_words(error)})"
