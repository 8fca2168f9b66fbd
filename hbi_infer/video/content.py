"""Tells from a file's own bytes whether it is a video, whatever its name; this file imports no decoder.

Only the containers that `hbi_infer.video.packets` reads are known, and of those that also hold sound alone, only files
with a video stream count. Nothing is believed beyond that: a file that looks like a video is still read by FFmpeg in a
process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 64 * 1024
"""Size of the part of a file in which its streams are looked for."""

# fmt: off
PHOTO_SUFFIXES = frozenset({
    ".avif", ".bmp", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jxl", ".png", ".tif", ".tiff", ".webp",
})
"""Suffixes of pictures; those that are not read are refused as pictures, not as videos."""
# fmt: on

_MOST_BOXES = 100
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_BRANDS_WITHOUT_VIDEO = (b"M4A ", b"M4B ", b"M4P ", b"crx ")
"""Kinds of mp4 whose pictures are a book's cover or a camera's raw photo."""

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_MATROSKA = bytes.fromhex("1a45dfa3")
_MATROSKA_VIDEO = bytes.fromhex("838101")
_OGG_VIDEO = re.compile(rb"\x80theora|\x01video\x00|OVP80|BBCD\x00|\x80daala")
_PROGRAM_STREAM_VIDEO = re.compile(rb"\x00\x00\x01[\xe0-\xef\xfd]")
_H264 = re.compile(
    rb"\A\x00{2,8}\x01(?:[\x09\x29].{0,64}?\x00\x00\x01)?[\x27\x47\x67].{3,512}?\x00\x00\x01[\x28\x48\x68]", re.DOTALL
)
_HEVC = re.compile(rb"\A\x00{2,8}\x01(?:\x46\x01.{0,64}?\x00\x00\x01)?\x40\x01.{3,512}?\x00\x00\x01\x42\x01", re.DOTALL)

_PACKET_SIZES = (188, 192, 204)
_LEAST_PACKETS, _ENOUGH_PACKETS = 5, 40


def is_photo(path: Path) -> bool:
    """Returns whether a file is a picture: by its content, or by its suffix where the content is no video's.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return True
    return path.suffix.lower() in PHOTO_SUFFIXES and not has_video(path)


def has_video(path: Path) -> bool:
    """Returns whether a file's content is a video.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        return _is_stream(head) or _holds_video(head) or (_is_mp4(head) and _has_video_track(file))


def _holds_video(head: bytes) -> bool:
    """Returns whether a file begins as a container with a video stream."""
    if head.startswith(b"RIFF") and head[8:12] == b"CDXA":  # a Video CD's sectors
        return _PROGRAM_STREAM_VIDEO.search(head) is not None
    return (
        (head.startswith(_MATROSKA) and _MATROSKA_VIDEO in head)
        or (head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AMV "))
        or (head.startswith(_ASF) and _ASF_VIDEO in head)
        or (head.startswith(b"FLV\1") and bool(head[4:5]) and head[4] & 5 != 4)
        or head.startswith((b"GIF87a", b"GIF89a"))
        or (head.startswith(b"OggS") and _OGG_VIDEO.search(head) is not None)
    )


def _is_stream(head: bytes) -> bool:
    """Returns whether a file begins as MPEG, H.264 or H.265, with or without packets around it."""
    if head.startswith(b"\0\0\1\xba"):
        return _PROGRAM_STREAM_VIDEO.search(head) is not None
    return (
        head.startswith(b"\0\0\1\xb3")
        or _H264.match(head) is not None
        or _HEVC.match(head) is not None
        or any(_has_packets(head, size) for size in _PACKET_SIZES)
    )


def _has_packets(head: bytes, size: int) -> bool:
    """Returns whether a transport stream's mark begins each packet of this size; the first packet may be cut."""
    enough = min(_ENOUGH_PACKETS, len(head) // size)
    if enough < _LEAST_PACKETS or head.isascii():  # the mark is a "G", and letters alone are a text
        return False
    starts = [start for start in range(size) if head[start] == head[start + size] == ord("G")]
    return any(head[start::size].count(b"G", 0, enough) == enough for start in starts)


def _is_mp4(head: bytes) -> bool:
    return head[4:8] in _FIRST_BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _BRANDS_WITHOUT_VIDEO)


def _has_video_track(file: BinaryIO) -> bool:
    """Returns whether an mp4 has a track whose handler is that of videos."""
    end = file.seek(0, 2)
    moov = next(_boxes(file, (0, end), b"moov"), (0, 0))
    return any(_handler(file, track) == b"vide" for track in _boxes(file, moov, b"trak"))


def _handler(file: BinaryIO, track: tuple[int, int]) -> bytes:
    """Returns the kind of an mp4's track."""
    media = next(_boxes(file, track, b"mdia"), (0, 0))
    start, _ = next(_boxes(file, media, b"hdlr"), (0, 0))
    file.seek(start + 8)
    return file.read(4)


def _boxes(file: BinaryIO, inside: tuple[int, int], kind: bytes) -> Iterator[tuple[int, int]]:
    """Yields where the contents of an mp4's boxes of a kind begin and end, among those inside a part of the file."""
    start, end = inside
    for _ in range(_MOST_BOXES):
        file.seek(start)
        header = file.read(16)
        if start + 8 > end or len(header) < 8:
            return
        size, content = int.from_bytes(header[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(header[8:], "big"), start + 16
        elif size == 0:  # up to the end
            size = end - start
        if size < content - start:
            return
        if header[4:8] == kind:
            yield content, min(start + size, end)
        start += size
