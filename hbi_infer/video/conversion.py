"""Makes of a video a file that browsers play: MP4 with H.264 and AAC, in a worker process.

Packets are copied as they are where a browser knows their codecs; otherwise pictures and sound are encoded anew. Times
begin at 0 and stay what they are in the video, so that a moment lies at the same time. The process is confined once
both files are open (see `hbi_infer.video.sandbox`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from hbi_engines.operating_system import limit_memory
from hbi_infer.errors import VideoError
from hbi_infer.video.moment import Target
from hbi_infer.video.opened_files import opened
from hbi_infer.video.packets import (
    READ_ERRORS,
    container_start_seconds,
    filled_packets,
    in_words,
    open_file,
    open_video,
)
from hbi_infer.video.pool import usual_memory_bytes
from hbi_infer.video.rehearsal import rehearse
from hbi_infer.video.sandbox import can_confine, confine
from hbi_infer.video.scaling import display_matrix, displayed_size
from hbi_infer.worker_process import Answer, Tell

MOST_SIDE = 1920
"""Longest side of pictures that are encoded anew."""

_ENCODER = "libx264"
_OPTIONS = {"crf": "23", "preset": "veryfast", "tune": "fastdecode"}
_VIDEO_CODECS = frozenset({"h264", "vp9", "av1"})
_AUDIO_CODECS = frozenset({"aac", "mp3", "opus", "flac"})
_FORMATS = ("yuv420p", "yuvj420p")
_UNIT = Fraction(1, 90_000)
_MOST_RATE = 240
_SOUND_RATE = 48_000
_NICE = 10
_FRAMES_PER_PROGRESS = 10


class CannotCopyError(Exception):
    """The packets of a video cannot be copied into an MP4 that a browser plays."""


def convert(path: Path | str, file: Target, tell: Tell, *, most_seconds: float) -> str:
    """Writes a video as MP4 that browsers play.

    Args:
        path: The video.
        file: The file to write.
        tell: Sends a sign of progress now and then.
        most_seconds: Duration of the longest video that is encoded anew.

    Returns:
        "copied" if the packets are those of the video, else "encoded".

    Raises:
        VideoError: It cannot be decoded, or is too long to be encoded anew. The message is what is wrong, without the
            file's name.
        OSError: The file cannot be written.
    """
    path = Path(path)
    try:
        _copy(path, file, tell)
        return "copied"
    except (CannotCopyError, av.FFmpegError, ValueError):
        if file.error:
            raise
        file.clear()
    _encode(path, file, tell, most_seconds)
    return "encoded"


def _copy(path: Path, file: Target, tell: Tell) -> None:
    """Copies the packets of pictures and sound."""
    with open_video(path) as (container, stream):
        context = stream.codec_context
        sound = _sound(container)
        names = {context.codec.canonical_name} | ({sound.codec_context.codec.canonical_name} if sound else set())
        if not names <= _VIDEO_CODECS | _AUDIO_CODECS or context.pix_fmt not in _FORMATS:
            raise CannotCopyError
        begin = container_start_seconds(container)
        with av.open(file, "w", format="mp4") as out:
            targets = {each.index: out.add_stream_from_template(each) for each in (stream, sound) if each}
            packets = filled_packets(container, *filter(None, (stream, sound)))
            for number, packet in enumerate(_dated(packets)):
                assert packet.pts is not None
                assert packet.dts is not None
                zero = round(begin / (packet.time_base or 1))
                packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
                packet.stream = targets[packet.stream_index]
                out.mux(packet)
                if number % _FRAMES_PER_PROGRESS == 0:
                    tell({})


def _dated(packets: Iterable[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Yields packets that all say when they are decoded; Matroska does not say it of the first ones of a stream."""
    waiting: dict[int, list[Packet[Stream]]] = defaultdict(list)
    for packet in packets:
        if packet.pts is None or not packet.time_base:
            raise CannotCopyError
        undated = waiting[packet.stream_index]
        undated.append(packet)
        if packet.dts is not None:
            for place, each in enumerate(undated, start=1):
                each.dts = packet.dts - (len(undated) - place) * (packet.duration or 1)
            yield from undated
            undated.clear()
    if any(waiting.values()):
        raise CannotCopyError


def _sound(container: InputContainer) -> AudioStream | None:
    """Returns the track of sound that players take; None if there is none that can be decoded."""
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) and best.codec_context else None


def _encode(path: Path, file: Target, tell: Tell, most_seconds: float) -> None:
    """Encodes pictures and sound anew."""
    if _ENCODER not in av.codecs_available:
        raise VideoError("cannot be converted here: this FFmpeg has no H.264 encoder")
    with open_video(path) as (container, stream):
        sound = _sound(container)
        begin = container_start_seconds(container)
        with av.open(file, "w", format="mp4") as out:
            pictures = _Pictures(out, stream, begin, most_seconds)
            sounds = _Sounds(out, sound, begin) if sound else None
            for number, packet in enumerate(filled_packets(container, *filter(None, (stream, sound)))):
                is_picture = packet.stream_index == stream.index
                _mux(out, pictures.take(packet) if is_picture or not sounds else sounds.take(packet))
                if number % _FRAMES_PER_PROGRESS == 0:
                    tell({})
            _mux(out, pictures.take(None))
            if sounds:
                _mux(out, sounds.take(None))
    if not pictures.has_any:
        raise VideoError("has no frame that can be decoded")


def _mux(out: OutputContainer, packets: Iterable[Packet[Stream]]) -> None:
    for packet in packets:
        out.mux(packet)


class _Pictures:
    """Decodes packets of pictures, and encodes them for browsers.

    Args:
        out: The file to write.
        stream: The stream of pictures.
        begin_seconds: Start of the video on its container's clock.
        most_seconds: Time in the video after which it is refused.

    Attributes:
        has_any: Whether a picture was written.
    """

    def __init__(self, out: OutputContainer, stream: VideoStream, begin_seconds: float, most_seconds: float) -> None:
        self._stream, self._begin_seconds, self._most_seconds = stream, begin_seconds, most_seconds
        rate = min(max(float(stream.average_rate or 25), 1.0), _MOST_RATE)
        self._step = round(1 / rate / _UNIT)
        target = out.add_stream(_ENCODER, rate=Fraction(rate).limit_denominator(1001), options=_OPTIONS)
        assert isinstance(target, VideoStream)
        self._target, self._last_pts = target, -1
        aspect = float(stream.sample_aspect_ratio or 1)
        self._aspect = aspect if 0.25 <= aspect <= 4 else 1.0
        self.has_any = False

    def take(self, packet: Packet[Stream] | None) -> Iterator[Packet[Stream]]:
        """Yields what is to be written, given a packet, or None at the end."""
        for frame in _decoded(self._stream, packet):
            assert isinstance(frame, VideoFrame)
            if not frame.is_corrupt:
                yield from self._target.encode(self._prepared(frame))
        if packet is None and self.has_any:
            yield from self._target.encode(None)

    def _prepared(self, frame: VideoFrame) -> VideoFrame:
        context = self._target.codec_context
        if not self.has_any:
            self._begin(frame)
        picture = frame.reformat(context.width, context.height, "yuv420p", dst_color_range=1)
        pts = self._last_pts + self._step
        if frame.pts is not None:  # in the stream's unit: frames at the end of a file do not know it
            pts = round((frame.pts * float(self._stream.time_base or 0) - self._begin_seconds) / _UNIT)
        if pts * _UNIT > self._most_seconds:
            raise VideoError(
                f"is longer than {self._most_seconds:g} s, the most that is converted: take a moment of it"
            )
        self._last_pts = max(pts, self._last_pts + 1)
        picture.pts, picture.time_base, picture.pict_type = self._last_pts, _UNIT, PictureType.NONE
        return picture

    def _begin(self, frame: VideoFrame) -> None:
        """Chooses the size by the first frame; the player turns it as it turns the video."""
        self.has_any = True
        width, height = round(frame.width * self._aspect), frame.height
        displayed_size(frame, self._aspect)  # refuses what is too large
        shrink = min(1.0, MOST_SIDE / max(width, height))
        context = self._target.codec_context
        context.width, context.height = (max(2, round(side * shrink / 2) * 2) for side in (width, height))
        context.pix_fmt, context.time_base = "yuv420p", _UNIT
        self._target.set_display_matrix(display_matrix(frame))


class _Sounds:
    """Decodes packets of sound, and encodes them for browsers.

    Args:
        out: The file to write.
        stream: The track of sound.
        begin_seconds: Start of the video on its container's clock.
    """

    def __init__(self, out: OutputContainer, stream: AudioStream, begin_seconds: float) -> None:
        self._stream, self._begin_seconds = stream, begin_seconds
        target = out.add_stream("aac", rate=_SOUND_RATE)
        assert isinstance(target, AudioStream)
        target.codec_context.layout = "stereo"
        self._target = target
        self._resampler = AudioResampler("fltp", "stereo", _SOUND_RATE, frame_size=1024)
        self._first_pts: int | None = None
        self._num_samples = 0

    def take(self, packet: Packet[Stream] | None) -> Iterator[Packet[Stream]]:
        """Yields what is to be written, given a packet, or None at the end."""
        for frame in _decoded(self._stream, packet):
            if self._first_pts is None:
                seconds = (frame.time or 0.0) - self._begin_seconds
                self._first_pts = max(0, round(seconds * _SOUND_RATE))
            frame.pts = None
            yield from self._encoded(self._resampler.resample(frame))
        if packet is None and self._first_pts is not None:
            yield from self._encoded(self._resampler.resample(None))
            yield from self._target.encode(None)

    def _encoded(self, frames: list[Any]) -> Iterator[Packet[Stream]]:
        for frame in frames:
            frame.pts = (self._first_pts or 0) + self._num_samples
            frame.time_base = Fraction(1, _SOUND_RATE)
            self._num_samples += frame.samples
            yield from self._target.encode(frame)


def _decoded(stream: VideoStream | AudioStream, packet: Packet[Stream] | None) -> list[Any]:
    """Decodes a packet, or with None what the decoder still holds; what is damaged is left out."""
    with suppress(av.FFmpegError):
        return list(stream.codec_context.decode(packet))
    return []


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Converts one video in a worker process.

    Args:
        job: The path, the file to write, and the longest duration in seconds.
        tell: Sends a sign of progress now and then.

    Returns:
        Whether it was copied or encoded.
    """
    av.logging.set_level(None)
    if hasattr(os, "nice"):
        os.nice(_NICE)  # searches go first
    limit_memory(usual_memory_bytes(1))
    rehearse()
    path, file = Path(job["path"]), Target(Path(job["target"]))
    try:
        with file, opened(path, open_file(path) if can_confine() else None):
            confine(may_write=True)
            how = convert(path, file, tell, most_seconds=job["most_seconds"])
    except (VideoError, *READ_ERRORS) as error:
        if file.error:
            raise VideoError(f"the video cannot be converted ({file.error.strerror}): free space") from error
        raise VideoError(f"{job['path']!r} {in_words(error)}") from error
    return Answer({"how": how})
