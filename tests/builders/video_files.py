"""Makes real video files for the tests: every container, and the cases that decoders find hard.

Each frame carries its own number, so that a test can tell which frame it was given: the centre square is a 4 x 4 board
whose cells are the bits of the number (white is 1), the lowest bit top left. The board outlives lossy codecs, scaling
and the centre crop.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

CELLS = 4


@dataclass(frozen=True)
class Format:
    """A container, with a codec to put into it."""

    suffix: str
    codec: str
    muxer: str | None = None
    audio_codec: str | None = None
    options: dict[str, str] = field(default_factory=dict)


FORMATS = {
    "mp4": Format(".mp4", "libx264", audio_codec="aac"),
    "mov": Format(".mov", "mpeg4"),
    "mkv": Format(".mkv", "libx264", audio_codec="aac"),
    "webm": Format(".webm", "libvpx-vp9", audio_codec="libopus"),
    "avi": Format(".avi", "mpeg4", audio_codec="libmp3lame"),
    "mpg": Format(".mpg", "mpeg1video", muxer="mpeg", audio_codec="mp2"),
    "wmv": Format(".wmv", "wmv2", muxer="asf"),
    "flv": Format(".flv", "flv"),
    "ts": Format(".ts", "libx264", muxer="mpegts", audio_codec="aac"),
    "3gp": Format(".3gp", "mpeg4"),
    "gif": Format(".gif", "gif"),
    "mp4-hevc": Format(".mp4", "libx265", options={"x265-params": "log-level=none"}),
    "mp4-av1": Format(".mp4", "libsvtav1", options={"preset": "12"}),
    "webm-vp8": Format(".webm", "libvpx"),
    "avi-mjpeg": Format(".avi", "mjpeg"),
    "mpg-mpeg2": Format(".mpg", "mpeg2video", muxer="vob"),
    "mkv-ffv1": Format(".mkv", "ffv1"),
    "avi-h264": Format(".avi", "libx264"),
    "ts-mpeg2": Format(".ts", "mpeg2video", muxer="mpegts"),
    "h264": Format(".h264", "libx264", muxer="h264"),
}


def numbered_frame(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Draw frame `number`.

    Returns:
        (height, width, 3) uint8.
    """
    side = min(width, height)
    image = np.full((height, width, 3), 96, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    edges = np.linspace(0, side, CELLS + 1).round().astype(int)
    for bit in range(CELLS * CELLS):
        row, column = divmod(bit, CELLS)
        cell = np.s_[top + edges[row] : top + edges[row + 1], left + edges[column] : left + edges[column + 1]]
        image[cell] = 220 if number >> bit & 1 else 30
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """Read the number of a square frame (H, W, 3) uint8 made by `numbered_frame`."""
    side = image.shape[0]
    centres = ((np.arange(CELLS) + 0.5) * side / CELLS).astype(int)
    reach = max(1, side // (CELLS * 4))
    bits = [
        image[row - reach : row + reach, column - reach : column + reach].mean() > 128
        for row in centres
        for column in centres
    ]
    return sum(int(bit) << place for place, bit in enumerate(bits))


def write_video(
    target: Path | io.RawIOBase,
    kind: str = "mp4",
    *,
    num_frames: int = 100,
    width: int = 96,
    height: int = 96,
    frames_per_second: Fraction | int = 25,
    timestamps_seconds: Sequence[float] | None = None,
    keyframe_interval: int = 12,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    with_audio: bool = False,
    rotation_degrees: int = 0,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    picture: NDArray[np.uint8] | None = None,
    moving: bool = False,
) -> None:
    """Write a video whose frames are numbered from 0.

    Args:
        target: Where to write. A raw stream that cannot seek gives a file without duration or index.
        kind: A key of `FORMATS`.
        num_frames: Frames to write.
        width: In pixels, as stored.
        height: In pixels, as stored.
        frames_per_second: The constant rate.
        timestamps_seconds: One for each frame: a variable frame rate, in milliseconds' accuracy.
        keyframe_interval: The most frames from one keyframe to the next.
        options: Of the encoder.
        container_options: Of the muxer.
        with_audio: Add a quiet tone as long as the video.
        rotation_degrees: How far a player shall turn the frames, anticlockwise.
        mirrored: A player shall mirror the frames left to right.
        pixel_aspect: Width of a pixel over its height.
        picture: (height, width, 3) uint8, for every frame instead of its number.
        moving: Let a texture drift behind the number, so that frames really depend on one another.
    """
    how = FORMATS[kind]
    rate = Fraction(frames_per_second)
    muxer = how.muxer or {"mkv": "matroska", "gif": "gif"}.get(how.suffix[1:], how.suffix[1:])
    where = target if isinstance(target, io.RawIOBase) else str(target)
    with av.open(where, "w", format=muxer, container_options=container_options or {}) as container:
        stream = container.add_stream(how.codec, rate=rate, options=how.options | (options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(how.codec, "yuv420p")
        stream.gop_size = keyframe_interval
        stream.codec_context.bit_rate = 4_000_000
        # Threads of libvpx wait busily for one another: where tests run side by side they hardly get anywhere.
        stream.codec_context.thread_count = 1
        if timestamps_seconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation_degrees or mirrored:
            stream.set_display_rotation(rotation_degrees, hflip=mirrored)
        if with_audio:
            assert how.audio_codec is not None
            sound = container.add_stream(how.audio_codec, rate=48_000 if how.audio_codec == "libopus" else 44_100)
            assert isinstance(sound, av.AudioStream)
            write_tone(container, sound, seconds=float(num_frames / rate))
        for number in range(num_frames):
            image = numbered_frame(number, width, height) if picture is None else picture
            if moving:
                image = drifting(image, number)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if timestamps_seconds is None:
                frame.pts, frame.time_base = number, 1 / rate
            else:
                frame.pts, frame.time_base = round(timestamps_seconds[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def drifting(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Lay a texture that moves by a pixel a frame over an image (H, W, 3) uint8, too faint to hide its number."""
    texture = np.random.default_rng(0).integers(-30, 30, (image.shape[0] // 4 + 1, image.shape[1] // 4 + 1, 3))
    texture = np.kron(texture, np.ones((4, 4, 1), int))[: image.shape[0], : image.shape[1]]
    return (image + np.roll(texture, number, axis=1)).clip(0, 255).astype(np.uint8)


def write_tone(container: av.container.OutputContainer, stream: av.AudioStream, *, seconds: float) -> None:
    """Write a quiet tone."""
    rate = stream.rate
    chunk = 1024
    for start in range(0, int(seconds * rate), chunk):
        wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(start, start + chunk) / rate)
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_audio(path: Path, *, seconds: float = 1.0, cover: bool = False) -> None:
    """Write an mp4 with sound only, or with a still picture as its cover."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44_100)
        assert isinstance(sound, av.AudioStream)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            assert isinstance(picture, av.VideoStream)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        write_tone(container, sound, seconds=seconds)
        if cover:
            frame = av.VideoFrame.from_ndarray(numbered_frame(1, 64, 64), format="rgb24")
            container.mux(picture.encode(frame))
            container.mux(picture.encode(None))


class Unseekable(io.RawIOBase):
    """A file that can only be written on, like a pipe: what a live recording is written to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Buffer) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def cut(path: Path, share: float) -> None:
    """Keep only the first `share` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def claim_duration(path: Path, seconds: float) -> None:
    """Let the header of an mkv claim another duration."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # the element Duration, eight bytes long
    struct.pack_into(">d", data, at, seconds * 1000)
    path.write_bytes(data)


def overwrite_packet(path: Path, number: int) -> None:
    """Spoil the data of one video packet, where it lies in the file, but not what the container says about it."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content = bytes(packets[number])
    data = path.read_bytes()
    at = data.index(content)
    path.write_bytes(data[:at] + b"\xa5" * len(content) + data[at + len(content) :])


def spoil(video: Path) -> None:
    """Leave nothing to decode in a file that looks unchanged."""
    status = video.stat()
    video.write_bytes(b"\0" * status.st_size)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
