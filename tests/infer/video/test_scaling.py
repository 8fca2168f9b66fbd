"""From a decoded frame to the square that a model sees."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hbi_infer.errors import VideoError
from hbi_infer.options import Fit, FrameSampling
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


FITS: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int]]] = {
    "squash": ({"fit": "squash"}, (64, 64), (0, 0)),
    "squash, then cut": ({"fit": "squash", "resize_to": 81}, (81, 81), (8, 8)),
    "crop": ({}, (149, 64), (42, 0)),
    "crop of a larger picture": ({"resize_to": 75}, (175, 75), (56, 6)),
    "crop of a larger picture as transformers": ({"resize_to": 75, "rounding": "transformers"}, (175, 75), (55, 5)),
    "crop as transformers": ({"rounding": "transformers"}, (149, 64), (42, 0)),
    "pad as open_clip": ({"fit": "pad"}, (64, 27), (0, -18)),
    "pad as transformers": ({"fit": "pad", "rounding": "transformers"}, (64, 27), (0, -19)),
}


@pytest.mark.parametrize("name", FITS)
def test_how_a_picture_becomes_a_square(name: str) -> None:
    """Against PIL: scaled to a size (W, H), then cut from (x, y), or laid on black at their negatives."""
    options, size, (x, y) = FITS[name]
    blobs = np.random.default_rng(0).integers(0, 256, (6, 12, 3), dtype=np.uint8)
    image = Image.fromarray(blobs).resize((280, 120), Image.Resampling.BICUBIC)
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    expected = np.asarray(scaled.crop((x, y, x + 64, y + 64))).astype(int)
    sampling = FrameSampling(image_size=64, **options)
    square = FrameScaler.of(sampling).square(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24"))
    assert np.abs(square - expected).max() <= 5


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_a_turned_and_anamorphic_picture_is_made_square_as_it_is_shown(tmp_path: Path, fit: Fit) -> None:
    """Stored 48 x 96 with pixels twice as wide as high, and turned: shown 96 x 96, so that all ways agree."""
    path = tmp_path / "both.mp4"
    squeezed = numbered_frame(0b1001_0110_1100_0011, 96, 96)[:, ::2]
    write_video(
        path, num_frames=1, width=48, height=96, pixel_aspect=Fraction(2, 1), rotation_degrees=90, picture=squeezed
    )
    by_crop, by_fit = (decode(path, FrameSampling(image_size=64, fit=way)).clips[0].frames[0] for way in ("crop", fit))
    np.testing.assert_array_equal(by_fit, by_crop)


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [(16_400, 4, r"16400 x 4 pixels; at most 16384 a side"), (4000, 2, r"4000 x 2 pixels, too narrow")],
)
def test_absurd_sizes_are_refused(width: int, height: int, reason: str) -> None:
    with pytest.raises(VideoError, match=reason):
        FrameScaler(64).square(av.VideoFrame(width, height, "rgb24"))
