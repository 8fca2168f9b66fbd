"""Every frame in the colours that a player shows, against the definitions of the standards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.colours import scaled_rgb
from hbi_infer.video.reader import decode
from tests.builders.coloured_frames import (
    LUMA,
    Tags,
    add_dolby_vision,
    flat_frame,
    hdr_codes,
    rgb_of_yuv,
    ten_bit_yuv,
    write_flat_video,
)

YUV = (100, 110, 150)
BT709, UNTAGGED, BT2020 = 1, 2, 9
PQ, HLG = 16, 18
P3 = 12


def shown(frame: av.VideoFrame) -> NDArray[np.int64]:
    """The colour (3,) in the middle of a frame."""
    return scaled_rgb(VideoReformatter(), frame, 32, 32)[16, 16].astype(int)


@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA))
def test_every_matrix_and_range(matrix: int, is_full_range: bool) -> None:
    tags = Tags(matrix, is_full_range, primaries=BT709)
    expected = rgb_of_yuv(YUV, matrix=matrix, is_full_range=is_full_range)
    np.testing.assert_allclose(shown(flat_frame("yuv420p", YUV, tags)), expected, atol=1.1)
    deep = [4 * value for value in YUV]
    if not is_full_range:
        np.testing.assert_allclose(shown(flat_frame("yuv422p10le", deep, tags)), expected, atol=1.1)


def test_full_range_by_the_pixel_format() -> None:
    np.testing.assert_allclose(
        shown(flat_frame("yuvj420p", YUV)), rgb_of_yuv(YUV, matrix=5, is_full_range=True), atol=1.1
    )


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(640, 480, 5), (720, 576, 5), (1024, 576, 5), (1280, 720, 1), (1920, 1080, 1), (720, 1280, 1), (1440, 480, 1)],
)
@pytest.mark.parametrize("named", [UNTAGGED, 0, 3, 200])
def test_a_frame_without_a_matrix_has_that_of_its_size(width: int, height: int, matrix: int, named: int) -> None:
    frame = flat_frame("yuv420p", YUV, Tags(named), width=width, height=height)
    np.testing.assert_allclose(shown(frame), rgb_of_yuv(YUV, matrix=matrix), atol=1.1)


def test_a_matrix_that_follows_from_the_primaries() -> None:
    np.testing.assert_allclose(
        shown(flat_frame("yuv420p", YUV, Tags(12, primaries=BT709))), rgb_of_yuv(YUV, matrix=BT709), atol=1.1
    )
    wide = [shown(flat_frame("yuv420p", YUV, Tags(matrix, primaries=BT2020))) for matrix in (12, UNTAGGED, BT2020)]
    np.testing.assert_array_equal(wide[0], wide[1])
    np.testing.assert_array_equal(wide[0], wide[2])


@pytest.mark.parametrize(
    ("is_full_range", "expected"),
    [(False, [166.6, 89.2, 139.3]), (None, [166.6, 89.2, 139.3]), (True, [160, 92, 136])],
)
def test_ycgco(is_full_range: bool | None, expected: list[float]) -> None:
    """R = Y - Cg + Co, G = Y + Cg, B = Y - Cg - Co."""
    frame = flat_frame("yuv444p", (120, 100, 140), Tags(8, is_full_range))
    np.testing.assert_allclose(shown(frame), expected, atol=1.1)


@pytest.mark.parametrize(("is_full_range", "expected"), [(None, 100), (True, 100), (False, (100 - 16) / 219 * 255)])
@pytest.mark.parametrize(("pixel_format", "factor"), [("gray", 1), ("gray10le", 4)])
def test_grey(pixel_format: str, factor: int, is_full_range: bool | None, expected: float) -> None:
    frame = flat_frame(pixel_format, [100 * factor], Tags(is_full_range=is_full_range))
    np.testing.assert_allclose(shown(frame), [expected] * 3, atol=1.1)


@pytest.mark.parametrize(
    ("pixel_format", "planes"),
    [
        ("rgb24", [[100, 150, 200]]),
        ("bgr0", [[200, 150, 100, 0]]),
        ("gbrp", [150, 200, 100]),
        ("gbrp10le", [600, 800, 400]),
        ("rgb48le", [[25700, 38550, 51400]]),
    ],
)
@pytest.mark.parametrize("tags", [Tags(), Tags(0, True), Tags(8), Tags(14, False)])
def test_rgb_stays(pixel_format: str, planes: list[Any], tags: Tags) -> None:
    np.testing.assert_allclose(shown(flat_frame(pixel_format, planes, tags)), [100, 150, 200], atol=1.1)


@pytest.mark.parametrize(
    ("opacity", "expected"), [(255, [100, 150, 200]), (128, [177, 202, 227]), (51, [224, 234, 244])]
)
def test_what_is_transparent_lies_on_white(opacity: int, expected: list[int]) -> None:
    for pixel_format, planes in (("rgba", [[100, 150, 200, opacity]]), ("gbrap", [150, 200, 100, opacity])):
        np.testing.assert_allclose(shown(flat_frame(pixel_format, planes)), expected, atol=1.6)
    share = opacity / 255
    grey = shown(flat_frame("yuva420p", (126, 128, 128, opacity), Tags(BT709)))
    np.testing.assert_allclose(grey, 255 - (255 - 128) * share, atol=1.6)


def test_a_fourth_channel_that_is_not_used_hides_nothing() -> None:
    np.testing.assert_array_equal(shown(flat_frame("rgba", [[100, 150, 200, 0]])), [100, 150, 200])


@pytest.mark.parametrize(("matrix", "name"), [(10, "BT.2020 with constant luminance"), (14, "ICtCp"), (15, "IPT-C2")])
def test_other_matrices_are_refused_by_name(tmp_path: Path, matrix: int, name: str) -> None:
    frame = flat_frame("yuv420p", YUV, Tags(matrix))
    with pytest.raises(
        VideoError, match=rf"^has colours in {name} \(matrix {matrix} of ITU-T H.273\), which cannot be"
    ):
        shown(frame)
    path = tmp_path / "rare.mkv"
    write_flat_video(path, "ffv1", frame, Tags(matrix), {})
    video = decode(path, FrameSampling(image_size=32))
    assert (video.status, video.reason.split(" (")[0]) == ("failed", f"has colours in {name}")


@pytest.mark.parametrize(("primaries", "most"), [(BT2020, 1.660491), (P3, 1.22494)])
def test_wide_primaries_of_standard_video(primaries: int, most: float) -> None:
    """Greys stay; a colour becomes more saturated, by the first row of the matrix from linear to linear light."""
    tags = Tags(transfer=1, primaries=primaries)
    np.testing.assert_allclose(shown(flat_frame("gbrp", [90, 90, 90], tags)), [90] * 3, atol=1)
    light = (np.array([120, 100, 100]) / 255) ** 2.4
    expected = 255 * (light[1] + most * (light[0] - light[1])) ** (1 / 2.4)
    assert shown(flat_frame("gbrp", [100, 100, 120], tags))[0] == pytest.approx(expected, abs=1.1)


HDR_FILES = {
    "hevc.mp4": ("libx265", "yuv420p10le", {"x265-params": "log-level=none:crf=5"}),
    "av1.mp4": ("libsvtav1", "yuv420p10le", {"preset": "12", "crf": "5"}),
    "h264.mkv": ("libx264", "yuv420p10le", {"crf": "5"}),
    "ffv1.mkv": ("ffv1", "yuv444p10le", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
}


@pytest.mark.parametrize("name", HDR_FILES)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_files(tmp_path: Path, name: str, transfer: int) -> None:
    """A colour that is darker than the knee of the tone curve is that which it was made from."""
    codec, pixel_format, options = HDR_FILES[name]
    tags = Tags(BT2020, is_full_range=False, transfer=transfer, primaries=BT2020)
    for srgb in ((128, 40, 40), (30, 60, 90), (150, 150, 150)):
        frame = flat_frame(pixel_format, ten_bit_yuv(hdr_codes(srgb, transfer)), tags, width=128, height=128)
        write_flat_video(tmp_path / name, codec, frame, tags, options)
        video = decode(tmp_path / name, FrameSampling(image_size=64))
        assert video.status == "ok"
        np.testing.assert_allclose(video.clips[0].frames[0, 32, 32].astype(int), srgb, atol=4)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize(("matrix", "primaries"), [(BT2020, BT2020), (UNTAGGED, UNTAGGED), (BT2020, UNTAGGED)])
def test_hdr_frames_with_few_tags(transfer: int, is_full_range: bool, matrix: int, primaries: int) -> None:
    tags = Tags(matrix, is_full_range, transfer, primaries)
    planes = ten_bit_yuv(hdr_codes((128, 40, 40), transfer), is_full_range=is_full_range)
    np.testing.assert_allclose(shown(flat_frame("yuv444p10le", planes, tags)), [128, 40, 40], atol=3)


def test_hdr_in_rgb_and_with_opacity() -> None:
    red, green, blue = (hdr_codes((128, 40, 40), PQ) * 1023).round()
    tags = Tags(0, True, PQ, BT2020)
    np.testing.assert_allclose(shown(flat_frame("gbrp10le", [green, blue, red], tags)), [128, 40, 40], atol=2)
    half = flat_frame("gbrap10le", [green, blue, red, 512], tags)
    np.testing.assert_allclose(shown(half), [191, 147, 147], atol=2)


@pytest.mark.parametrize(("profile", "status"), [(0, "failed"), (1, "ok")])
def test_dolby_vision_without_a_base_layer_is_refused(tmp_path: Path, profile: int, status: str) -> None:
    path = tmp_path / "dolby.hevc"
    frame = flat_frame("yuv420p10le", [500, 512, 512], width=128, height=128)
    options = {"x265-params": "log-level=none:bframes=0:frame-threads=1"}
    write_flat_video(path, "libx265", frame, Tags(), options)
    add_dolby_vision(path, profile)
    video = decode(path, FrameSampling(image_size=32))
    assert video.status == status
    assert ("has colours of Dolby Vision profile 5" in video.reason) == (status == "failed")
