"""Frames and files of one colour, in any pixel format and with any colour tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Matrix of ITU-T H.273 -> the parts of red and of blue in luma."""


@dataclass(frozen=True)
class Tags:
    """What a frame says of its colours, in the numbers of ITU-T H.273; nothing by default."""

    matrix: int = 2
    is_full_range: bool | None = None
    transfer: int = 2
    primaries: int = 2

    def put_on(self, target: Any) -> None:
        """Tags a frame or an encoder."""
        target.colorspace, target.color_trc, target.color_primaries = self.matrix, self.transfer, self.primaries
        target.color_range = {None: 0, False: 1, True: 2}[self.is_full_range]


def flat_frame(
    pixel_format: str, planes: Sequence[Any], tags: Tags | None = None, *, width: int = 64, height: int = 64
) -> av.VideoFrame:
    """Makes a frame of one colour.

    Args:
        pixel_format: Its name in FFmpeg.
        planes: For each plane its value, or the values of one pixel.
        tags: What the frame says of its colours.
        width: Width in pixels.
        height: Height in pixels.
    """
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    for plane, values in zip(frame.planes, planes, strict=True):
        pixel = np.atleast_1d(values).astype(dtype).tobytes()
        plane.update((pixel * (plane.buffer_size // len(pixel) + 1))[: plane.buffer_size])
    (tags or Tags()).put_on(frame)
    return frame


def rgb_of_yuv(yuv: Sequence[float], *, matrix: int, is_full_range: bool = False) -> NDArray[np.float64]:
    """Returns the R'G'B' (3,) from 0 to 255 of 8-bit luma and chroma, by the definition of a matrix."""
    red_part, blue_part = LUMA[matrix]
    (black, luma), chroma = ((0, 255), 255) if is_full_range else ((16, 219), 224)
    y, u, v = (yuv[0] - black) / luma, (yuv[1] - 128) / chroma, (yuv[2] - 128) / chroma
    red, blue = y + 2 * (1 - red_part) * v, y + 2 * (1 - blue_part) * u
    green = (y - red_part * red - blue_part * blue) / (1 - red_part - blue_part)
    return 255 * np.clip([red, green, blue], 0, 1)


def ten_bit_yuv(rgb: NDArray[np.float64], *, matrix: int = 9, is_full_range: bool = False) -> list[int]:
    """Returns 10-bit luma and chroma of R'G'B' (3,) from 0 to 1, by the definition of a matrix."""
    red_part, blue_part = LUMA[matrix]
    y = red_part * rgb[0] + (1 - red_part - blue_part) * rgb[1] + blue_part * rgb[2]
    (black, luma), chroma, middle = ((0, 1023), 1023, 512) if is_full_range else ((64, 876), 896, 512)
    u, v = (rgb[2] - y) / (1 - blue_part) / 2, (rgb[0] - y) / (1 - red_part) / 2
    return [round(black + luma * y), round(middle + chroma * u), round(middle + chroma * v)]


BT709_TO_BT2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919541, 0.011362], [0.016391, 0.088013, 0.895595]]
)
"""Matrix (3, 3) from linear to linear light, of ITU-R BT.2087."""


def hdr_codes(srgb: Sequence[float], transfer: int) -> NDArray[np.float64]:
    """Returns the R'G'B' (3,) from 0 to 1 of an sRGB colour in BT.2020 and PQ (16) or HLG (18); white has 203 cd/m2."""
    codes = np.asarray(srgb) / 255
    light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    nits = 203 * BT709_TO_BT2020 @ light
    return pq_codes(nits) if transfer == 16 else hlg_codes(nits)


def pq_codes(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the codes of SMPTE ST 2084 of light in cd/m2, of any shape."""
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_codes(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the codes of ARIB STD-B67 of light (3,) in cd/m2 on a display of 1000 cd/m2."""
    display = nits / 1000
    scene = display * max(display @ np.array([0.2627, 0.6780, 0.0593]), 1e-9) ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def write_flat_video(path: Path, codec: str, frame: av.VideoFrame, tags: Tags, options: dict[str, str]) -> None:
    """Writes four times the same frame; container and codec say the tags as far as they can."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        stream.codec_context.thread_count = 1
        tags.put_on(stream.codec_context)
        for number in range(4):
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def add_dolby_vision(path: Path, profile: int) -> None:
    """Adds Dolby Vision's metadata to each picture of a raw HEVC file.

    Args:
        path: The file, with one packet for each picture.
        profile: Profile of the metadata: 0 belongs to Dolby Vision 5, 1 to 7 and 8.
    """
    with av.open(str(path)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    path.write_bytes(b"".join(picture + _metadata_unit(profile) for picture in pictures))


def _metadata_unit(profile: int) -> bytes:
    """A unit of HEVC with the metadata of a picture: one straight line for each of three components."""

    def number(value: int) -> str:  # Exp-Golomb
        digits = f"{value + 1:b}"
        return "0" * (len(digits) - 1) + digits

    head = f"{2:06b}{0:011b}{profile:04b}{0:04b}1" + f"000{number(23)}01{profile == 0:b}"
    head += number(2) + number(2) + number(4) + "000001" + "00" + number(0) * 3
    pivots = (number(0) + f"{0:010b}{1023:010b}") * 3 + number(0) * 2
    lines = (number(0) + number(0) + "0" + f"1{0:023b}" + f"010{0:023b}") * 3
    bits = head + pivots + lines
    bits += "0" * (-len(bits) % 8)
    content = b"\x19" + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\1\2\3\4\x80"
    escaped = bytearray()
    for byte in content:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return b"\0\0\0\1\x7c\1" + bytes(escaped)
