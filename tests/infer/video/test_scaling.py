"""From a decoded frame to the square that a model sees."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.reader import decode, probe
from hbi_infer.video.scaling import FrameScaler
from tests.builders.video_files import numbered_frame, read_number, write_video
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = np.load(GOLDEN_FOLDER / "preprocess.npz")
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize("case", "abcd")
def test_pixels_are_near_the_published_ones(case: str) -> None:
    """At most 7 of 255, 0.55 on average: libswscale's bicubic against PIL's."""
    image, size = GOLDEN[f"{case}.image"], int(GOLDEN[f"{case}.res"])
    published = (GOLDEN[f"{case}.out"].transpose(1, 2, 0) * STD + MEAN) * 255
    scaled = FrameScaler(size).square(av.VideoFrame.from_ndarray(image, format="rgb24"))
    assert scaled.shape == (size, size, 3)
    difference = np.abs(scaled - published)
    assert difference.max() < 7.5
    assert difference.mean() < 0.55


def test_colours_of_a_yuv_frame_are_interpolated() -> None:
    """Against conversion at full size, then the same scaling. Without full chroma it is 113, and 6.4 on average."""
    image = np.repeat(np.repeat(GOLDEN["a.image"], 3, axis=0), 3, axis=1)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU601")
    full = av.VideoFrame.from_ndarray(frame.reformat(format="rgb24", interpolation=0x2000 | 4).to_ndarray())
    scaler = FrameScaler(224)
    difference = np.abs(scaler.square(frame).astype(int) - scaler.square(full))
    assert difference.max() <= 8
    assert difference.mean() < 1.5


def corners(width: int, height: int) -> NDArray[np.uint8]:
    """A frame (H, W, 3) uint8 of four grey quarters: 40 top left, 90 top right, 150 bottom left, 220 bottom right."""
    return (
        np.kron(np.array([[40, 90], [150, 220]]), np.ones((height // 2, width // 2)))[..., None]
        .repeat(3, 2)
        .astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("degrees", "mirrored", "expected"),
    [
        (0, False, [[40, 90], [150, 220]]),
        (90, False, [[90, 220], [40, 150]]),
        (180, False, [[220, 150], [90, 40]]),
        (270, False, [[150, 40], [220, 90]]),
        (0, True, [[90, 40], [220, 150]]),
        (90, True, [[220, 90], [150, 40]]),
    ],
)
def test_rotation_is_honoured(tmp_path: Path, degrees: int, mirrored: bool, expected: list[list[int]]) -> None:
    path = tmp_path / "turned.mp4"
    write_video(
        path, num_frames=1, width=96, height=64, rotation_degrees=degrees, mirrored=mirrored, picture=corners(96, 64)
    )
    video = decode(path, FrameSampling(image_size=32))
    assert video.status == "ok"
    image = video.clips[0].frames[0].astype(int)
    quarters = [[image[row, column].mean() for column in (8, 24)] for row in (8, 24)]
    np.testing.assert_allclose(quarters, expected, atol=6)
    info = probe(path)
    assert info == video.info
    assert (info.width, info.height) == ((64, 96) if degrees % 180 else (96, 64))
    if not mirrored:
        assert info.rotation_degrees == -degrees % 360


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    """Stored 48 x 96 with pixels twice as wide as high: shown 96 x 96, so nothing is cropped."""
    path = tmp_path / "anamorphic.mp4"
    squeezed = numbered_frame(0b1001_0110_1100_0011, 96, 96)[:, ::2]
    write_video(path, num_frames=1, width=48, height=96, pixel_aspect=Fraction(2, 1), picture=squeezed)
    video = decode(path, FrameSampling(image_size=64))
    assert video.info is not None
    assert (video.info.width, video.info.height) == (96, 96)
    assert read_number(video.clips[0].frames[0]) == 0b1001_0110_1100_0011


@pytest.mark.parametrize(("width", "height"), [(61, 47), (47, 61), (2, 2), (1, 1), (640, 36)])
def test_any_size_gives_a_square(width: int, height: int) -> None:
    frame = av.VideoFrame.from_ndarray(numbered_frame(0x5A5A, width, height), format="rgb24")
    image = FrameScaler(64).square(frame)
    assert image.shape == (64, 64, 3)
    if min(width, height) > 16:
        assert read_number(image) == 0x5A5A


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [(16_400, 4, r"16400 x 4 pixels; at most 16384 a side"), (4000, 2, r"4000 x 2 pixels, too narrow")],
)
def test_absurd_sizes_are_refused(width: int, height: int, reason: str) -> None:
    with pytest.raises(VideoError, match=reason):
        FrameScaler(64).square(av.VideoFrame(width, height, "rgb24"))
