"""Pictures as videos of one frame: turned upright, in sRGB, on white; and files that are none."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from hbi_infer.options import FrameSampling
from hbi_infer.video.photo import read_photo
from hbi_infer.video.reader import decode
from tests.builders.video_files import numbered_frame, read_number, write_video

SAMPLING = FrameSampling(image_size=64, max_frames=4)
NUMBER = 0b0001_0010_0110_1011
ORIENTATION = 0x0112


def numbered(width: int = 160, height: int = 120) -> Image.Image:
    return Image.fromarray(numbered_frame(NUMBER, width, height))


def square_of(path: Path) -> NDArray[np.uint8]:
    photo = read_photo(path, SAMPLING)
    assert (photo.status, photo.reason) == ("ok", "")
    (clip,) = photo.clips
    assert clip.mask.tolist() == [True, False, False, False]
    assert clip.timestamps_seconds[0] == clip.start_seconds == clip.end_seconds == 0
    return clip.frames[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_is_the_frame_that_a_video_of_it_has(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    numbered().save(path)
    square = square_of(path)
    assert read_number(square) == NUMBER
    write_video(tmp_path / "v.mkv", "mkv-ffv1", num_frames=1, width=160, height=120, picture=np.asarray(numbered()))
    in_video = decode(tmp_path / "v.mkv", SAMPLING).clips[0].frames[0]
    assert np.abs(square.astype(int) - in_video).mean() < 3
    info = read_photo(path, SAMPLING).info
    assert info is not None
    assert (info.width, info.height, info.codec) == (160, 120, {"jpg": "jpeg"}.get(suffix, suffix))
    assert (info.duration_seconds, info.rotation_degrees) == (None, 0)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Orientation of EXIF -> how a camera that writes it has stored an upright scene."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_is_turned_as_a_viewer_turns_it(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    numbered().transpose(TURNS[orientation]).save(path, exif=exif)
    assert read_number(square_of(path)) == NUMBER
    info = read_photo(path, SAMPLING).info
    assert info is not None
    assert (info.width, info.height) == (160, 120)
    assert info.rotation_degrees == {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(orientation, 0)


def test_colours_of_another_profile_become_srgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.createProfile("sRGB")
    plain = Image.new("RGB", (80, 80), (200, 60, 40))
    plain.save(tmp_path / "plain.png", icc_profile=ImageCms.ImageCmsProfile(srgb).tobytes())
    np.testing.assert_allclose(square_of(tmp_path / "plain.png")[32, 32], (200, 60, 40), atol=2)
    plain.save(tmp_path / "unusable.png", icc_profile=lab.tobytes())
    np.testing.assert_allclose(square_of(tmp_path / "unusable.png")[32, 32], (200, 60, 40), atol=2)
    plain.save(tmp_path / "broken.png", icc_profile=b"no profile")
    np.testing.assert_allclose(square_of(tmp_path / "broken.png")[32, 32], (200, 60, 40), atol=2)
    swapped = bytearray(ImageCms.ImageCmsProfile(srgb).tobytes())
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped[red : red + 1], swapped[blue : blue + 1] = b"b", b"r"
    plain.save(tmp_path / "swapped.png", icc_profile=bytes(swapped))
    red_then, _, blue_then = square_of(tmp_path / "swapped.png")[32, 32]
    assert blue_then > 150 > 80 > red_then


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_kind_of_pixel(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(numbered().convert("L")).astype(np.uint16) * 257).save(path)
    else:
        numbered().convert(mode).save(path)
    assert read_number(square_of(path)) == NUMBER


def test_what_is_transparent_lies_on_white_unless_all_is(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.save(tmp_path / "all.png")
    assert square_of(tmp_path / "all.png").max() <= 2
    image.paste((200, 0, 0, 255), (0, 0, 32, 64))
    image.save(tmp_path / "half.png")
    square = square_of(tmp_path / "half.png")
    np.testing.assert_allclose(square[32, 10], (200, 0, 0), atol=3)
    np.testing.assert_allclose(square[32, 54], (255, 255, 255), atol=3)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims another size than it has."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "png")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def cut_short(kind: str) -> bytes:
    """The first half of a picture."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()[: buffer.tell() // 2]


@pytest.mark.parametrize(
    ("content", "reason", "problem"),
    [
        (b"", "is empty", "damaged"),
        (b"no picture", "is no JPEG, PNG or WebP picture that can be read here", "damaged"),
        (b"BM" + bytes(200), "is no JPEG, PNG or WebP picture that can be read here", "damaged"),
        (cut_short("jpeg"), "is damaged or cut short", "damaged"),
        (cut_short("png"), "is damaged or cut short", "damaged"),
        (cut_short("webp"), "is", "damaged"),
        (png_of(20_000, 10), "has 20000 x 10 pixels; at most 16384 a side are read", "too_large"),
        (png_of(9_500, 9_500), "has 9500 x 9500 pixels; at most 80 million are read", "too_large"),
        (png_of(60_000, 60_000), "has more than 80 million pixels", "too_large"),
    ],
    ids=["empty", "text", "bmp", "cut jpeg", "cut png", "cut webp", "long", "large", "huge"],
)
def test_files_that_are_no_picture(tmp_path: Path, content: bytes, reason: str, problem: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    photo = read_photo(path, SAMPLING)
    assert (photo.status, photo.clips, photo.problem) == ("failed", (), problem)
    assert photo.reason.startswith(reason)


def test_a_picture_too_narrow_to_cut_a_square_from(tmp_path: Path) -> None:
    Image.new("RGB", (1, 16_000)).save(tmp_path / "narrow.png")
    assert "too narrow to cut a square from" in read_photo(tmp_path / "narrow.png", SAMPLING).reason
