"""The pixels of a decoded frame in sRGB, whatever matrix, range, primaries and transfer curve it has.

libswscale converts ordinary frames while it scales them. It knows five matrices and no transfer curves (its own tone
mapping takes 2.4 s to start, for each file), so the rest is computed here, on the small picture.

A frame that names no matrix has that of BT.709 from 1280 pixels of width or 577 of height on, and that of BT.601 below:
the rule of mpv. PQ, HLG, and the primaries of BT.2020 and P3 become sRGB (see `tone_mapping`); the primaries of BT.601
differ too little to matter. What is transparent lies on white, as in the preprocessing of `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from hbi_infer.errors import VideoError
from hbi_infer.options import Interpolation as Scaling
from hbi_infer.video.tone_mapping import Primaries, Transfer, to_srgb

Codes: TypeAlias = NDArray[Any]
"""Array of uint8 or of uint16."""

# Without full chroma interpolation colours are off by up to 91 of 255 at edges, with it by 5.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FLAGS: Mapping[Scaling, Interpolation] = {
    "bicubic": Interpolation.BICUBIC | _EXACT,
    "bilinear": Interpolation.BILINEAR | _EXACT,
}

# Matrices are numbered as in ITU-T H.273. libswscale knows these, of which 5 and 6 are both BT.601, and no other.
_BT709, _FCC, _BT601, _BT601_TOO, _SMPTE240M, _YCGCO, _BT2020, _BY_PRIMARIES = 1, 4, 5, 6, 7, 8, 9, 12
_OF_LIBSWSCALE = (_BT709, _FCC, _BT601, _BT601_TOO, _SMPTE240M, _BT2020)
_REFUSED = {
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    13: "constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_TRANSFERS: dict[int, Transfer] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
_PRIMARIES: dict[int, Primaries] = {
    ColorPrimaries.BT2020: "bt2020",
    ColorPrimaries.SMPTE431: "p3",
    ColorPrimaries.SMPTE432: "p3",
}


def scaled_rgb(
    reformatter: VideoReformatter, frame: VideoFrame, width: int, height: int, scaling: Scaling = "bicubic"
) -> NDArray[np.uint8]:
    """Scales a frame with libswscale and converts its colours.

    Args:
        reformatter: Reformatter that keeps the scaling tables of one video.
        frame: Decoded frame of any size, pixel format and colours.
        width: W, in pixels.
        height: H, in pixels.
        scaling: How values between pixels are found.

    Returns:
        (H, W, 3) uint8, sRGB.

    Raises:
        VideoError: The colours cannot be converted. The message is what is wrong, without the file's name.
    """
    _refuse_dolby_vision_5(frame)
    layout = _layout(frame.format.name)
    matrix = _matrix(frame) if layout.has_chroma else None
    transfer, primaries = _transfer(frame), _primaries(frame)

    def scaled(pixel_format: str, **matrices: int | None) -> Codes:
        matrices = matrices or {"src_colorspace": matrix}
        options = {"interpolation": _FLAGS[scaling], "threads": 1, **matrices}
        return np.asarray(reformatter.reformat(frame, width, height, pixel_format, **options).to_ndarray())

    is_limited_grey = layout.is_grey and frame.color_range == ColorRange.MPEG
    is_standard = (transfer, primaries) == ("sdr", "bt709")
    if is_standard and matrix != _YCGCO and not layout.is_transparent and not is_limited_grey:
        return scaled("rgb24")
    if matrix == _YCGCO:
        # libswscale refuses the name, but scales the planes under another.
        planes = scaled("yuv444p16le", src_colorspace=_BT709, dst_colorspace=_BT709)
        rgba = _rgba_of_ycgco(planes, is_full_range=_is_full_range(frame))
    else:
        rgba = scaled("rgba" if is_standard else "rgba64le")
    rgb, opacity = rgba[..., :3], rgba[..., 3:] / np.iinfo(rgba.dtype).max
    if is_limited_grey:  # libswscale takes all grey for full range
        rgb = _stretched(rgb)
    image = _eight_bits(rgb) if is_standard else to_srgb(rgb, transfer, primaries)
    return _on_white(image, opacity) if layout.is_transparent else image


class _Layout(NamedTuple):
    """Components of a pixel format."""

    has_chroma: bool
    is_grey: bool
    is_transparent: bool


@cache
def _layout(pixel_format: str) -> _Layout:
    """Describes a pixel format."""
    described = VideoFormat(pixel_format)
    # FFmpeg counts palettes as colours with an opacity, and gives them one component.
    num_colours = sum(not component.is_alpha for component in described.components)
    is_direct = described.is_rgb or described.has_palette or described.is_bayer or pixel_format.startswith("xyz")
    return _Layout(
        has_chroma=num_colours == 3 and not is_direct,
        is_grey=num_colours == 1 and not is_direct,
        is_transparent=described.has_palette or any(component.is_alpha for component in described.components),
    )


def _matrix(frame: VideoFrame) -> int:
    """Returns the number of the matrix between RGB and luma and chroma of a frame that has chroma.

    Raises:
        VideoError: The matrix is known, and not to this module.
    """
    named = int(frame.colorspace)
    if named in _REFUSED:
        raise VideoError(f"has colours in {_REFUSED[named]} (matrix {named} of ITU-T H.273), which cannot be converted")
    if named == _YCGCO or named in _OF_LIBSWSCALE:
        return named
    if _primaries(frame) == "bt2020":
        return _BT2020
    is_high_definition = frame.width >= 1280 or frame.height > 576
    return _BT709 if is_high_definition or named == _BY_PRIMARIES else _BT601


def _transfer(frame: VideoFrame) -> Transfer:
    """Returns the curve from light to codes."""
    return _TRANSFERS.get(int(frame.color_trc), "sdr")


def _primaries(frame: VideoFrame) -> Primaries:
    """Returns the primaries: what the frame says, or what its matrix or transfer curve is used with."""
    named = int(frame.color_primaries)
    if named == ColorPrimaries.UNSPECIFIED and (frame.colorspace == _BT2020 or _transfer(frame) != "sdr"):
        return "bt2020"
    return _PRIMARIES.get(named, "bt709")


def _is_full_range(frame: VideoFrame) -> bool:
    """Returns whether black is 0, not 16 of 255."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def _rgba_of_ycgco(planes: Codes, *, is_full_range: bool) -> Codes:
    """Converts Y, Cg and Co (H, W, 3) uint16 to opaque (H, W, 4) uint16."""
    y, green, orange = np.moveaxis(planes / (257 if is_full_range else 256), -1, 0)
    (black, luma), chroma = ((0, 255), 255) if is_full_range else ((16, 219), 224)
    y, green, orange = (y - black) / luma, (green - 128) / chroma, (orange - 128) / chroma
    rgba = np.stack([y - green + orange, y + green, y - green - orange, np.ones_like(y)], axis=-1)
    return (rgba.clip(0, 1) * 65535 + 0.5).astype(np.uint16)


def _stretched(grey: Codes) -> Codes:
    """Stretches codes of any shape from the limited to the full range."""
    most = np.iinfo(grey.dtype).max
    values = (grey / most * 255 - 16) / 219
    return (values.clip(0, 1) * most + 0.5).astype(grey.dtype)


def _eight_bits(codes: Codes) -> NDArray[np.uint8]:
    """Returns codes as 8-bit ones, of any shape."""
    return np.round(codes / (np.iinfo(codes.dtype).max / 255)).astype(np.uint8)


def _on_white(image: NDArray[np.uint8], opacity: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lays an image (H, W, 3) uint8 on white; its opacity (H, W, 1) goes from 0 to 1."""
    # Files that use the four bytes of a pixel for three colours leave the fourth at 0 everywhere.
    if opacity.min() == 1 or opacity.max() == 0:
        return image
    return np.round(255 - (255.0 - image) * opacity).astype(np.uint8)


def _refuse_dolby_vision_5(frame: VideoFrame) -> None:
    """Refuses Dolby Vision without a base layer that others can show: its planes hold no colours known here.

    Raises:
        VideoError: The metadata have profile 0. It follows a 25, 6 bits of a type and 11 of a format.
    """
    # The stubs of PyAV 18 say that these are keyed by strings only.
    side_data = cast("Mapping[SideDataType, SideData]", frame.side_data)
    if SideDataType.DOVI_RPU_BUFFER not in side_data:
        return
    metadata = bytes(side_data[SideDataType.DOVI_RPU_BUFFER])
    if len(metadata) > 3 and metadata[0] == 25 and metadata[3] >> 3 & 15 == 0:
        raise VideoError("has colours of Dolby Vision profile 5, which only decoders of Dolby show rightly")
