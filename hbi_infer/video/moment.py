"""A moment of a video, written into an open file: its packets as they are, or its pictures encoded anew."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hbi_infer.errors import VideoError
from hbi_infer.video.clock import Clock
from hbi_infer.video.packets import VideoPackets, container_start_seconds, filled_packets, open_video, scan
from hbi_infer.video.reader import WholeFrame, whole_frames
from hbi_infer.video.scaling import display_matrix
from hbi_infer.worker_process import Tell

_MP4_VIDEO = frozenset({"h264", "hevc", "av1", "mpeg4"})
_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})
_COPIED_FORMATS = frozenset({"mov", "matroska", "mpegts", "flv"})
"""Containers whose packets say when they are shown."""
_ENCODERS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
_MUXERS = {".mp4": "mp4", ".mkv": "matroska"}
_UNIT = Fraction(1, 90_000)
"""Unit of time of encoded pictures, in seconds."""
_SAME_SECONDS = 1e-3
_MOST_FRAMES_AWAY = 1.01
"""Distance of a keyframe from the start, in frames of the mean rate, up to which the packets are copied."""

_TimedPacket: TypeAlias = "tuple[float, Packet[Stream]]"
"""Seconds from the start of the moment, and a packet."""


class Target:
    """A file to write, which keeps the system's first refusal: FFmpeg passes only some of them on.

    Attributes:
        path: Path of the file.
        error: The refusal, if there was one.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.error: OSError | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("wb")
        except OSError as error:
            self.error = error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if not self.error:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as refused:
            self.error = refused
        with suppress(OSError):
            self._file.close()
        if self.error and not error:
            raise self.error

    def write(self, data: bytes) -> int:
        """Writes bytes; returns their number."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to another place, as files do."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self.error = self.error or error
            raise

    def tell(self) -> int:
        """Returns the place."""
        return self._file.tell()

    def clear(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._file.truncate()


@dataclass(frozen=True)
class Moment:
    """A part of a video.

    Attributes:
        path: Path of the video.
        packets: Its packets.
        first: Number of the first frame on the video's clock, the one that is shown at the start.
        end: Number of the frame after the last.
        start_seconds: Time in the video at which the moment begins.
        end_seconds: Time at which it ends.
    """

    path: Path
    packets: VideoPackets
    first: int
    end: int
    start_seconds: float
    end_seconds: float

    @classmethod
    def of(cls, path: Path | str, start_seconds: float, end_seconds: float, tell: Tell) -> Moment:
        """Reads the packets of a video, and finds the frames of a stretch of time; at least one.

        Raises:
            VideoError: There is no video. The message is what is wrong, without the file's name.
        """
        path = Path(path)
        packets = scan(path, lambda: tell({}))
        times = packets.clock.frame_times_seconds
        first = max(int(np.searchsorted(times, start_seconds + _SAME_SECONDS)) - 1, 0)
        end = max(int(np.searchsorted(times, end_seconds - _SAME_SECONDS)), first + 1)
        return cls(path, packets, first, end, start_seconds, end_seconds)

    @property
    def clock(self) -> Clock:
        """When the frames are shown."""
        return self.packets.clock

    def seconds_of(self, frame: int) -> float:
        """Returns the time of a frame in the video."""
        return float(self.clock.frame_times_seconds[frame])

    def copied(self) -> tuple[int, NDArray[np.int64]] | None:
        """Returns the frame to begin with and the packets (K,) to copy; None if no keyframe is near enough."""
        if not self.clock.is_timed:
            return None
        ticks = self.clock.ticks
        for frame in (self.first, self.first - 1, self.first + 1):
            if not 0 <= frame < self.end or not self._is_near(frame):
                continue
            tick = self.clock.frame_keys[frame]
            packet = int(np.flatnonzero(ticks == tick)[0])
            if self.packets.is_key[packet]:
                last_tick = self.clock.frame_keys[self.end - 1]
                last = int(np.flatnonzero((ticks >= tick) & (ticks <= last_tick)).max())
                numbers = np.arange(packet, last + 1)
                # Frames that are shown before the keyframe, and coded after it, need what is cut off.
                return frame, numbers[ticks[numbers] >= tick]
        return None

    def _is_near(self, frame: int) -> bool:
        seconds = abs(self.seconds_of(frame) - self.start_seconds)
        return seconds * self.clock.frames_per_second <= _MOST_FRAMES_AWAY


class CannotCopyError(Exception):
    """The packets of a moment cannot be copied: they do not say when they are shown, or no container takes them."""


def write_moment(moment: Moment, file: Target, tell: Tell) -> tuple[str, bool]:
    """Writes a moment; returns the suffix that the file wants, and whether the pictures are copied.

    Raises:
        VideoError: The video has changed, or no frame of the moment can be decoded.
        OSError: The file cannot be written, or the video cannot be read.
    """
    copied = moment.copied()
    if copied is not None:
        try:
            return _copy(moment, *copied, file), True
        except (CannotCopyError, av.FFmpegError, ValueError):
            if file.error:
                raise
            file.clear()
    return _encode(moment, file, tell), False


def _copy(moment: Moment, frame: int, numbers: NDArray[np.int64], file: Target) -> str:
    with open_video(moment.path) as (container, stream):
        if _format(container) not in _COPIED_FORMATS:
            raise CannotCopyError
        is_mp4 = _codec(stream) in _MP4_VIDEO
        suffix, tracks = _sound_tracks(container, is_mp4=is_mp4)
        with _opened(file, suffix) as out:
            if _codec(stream) not in out.supported_codecs:
                raise CannotCopyError
            target = out.add_stream_from_template(stream)
            sounds = _sounds(container, out, tracks, moment.seconds_of(frame), moment.end_seconds)
            pictures = _copied_pictures(moment, numbers)
            _mux(out, target, pictures, sounds)
    return suffix


def _copied_pictures(moment: Moment, numbers: NDArray[np.int64]) -> Iterator[_TimedPacket]:
    """Yields the packets (K,) of the pictures, with times from the start of the moment."""
    ticks = moment.clock.ticks
    zero, last, wanted = int(ticks[numbers[0]]), int(numbers[-1]), set(numbers.tolist())
    with open_video(moment.path) as (container, stream):
        undated: list[Packet[Stream]] = []
        for number, packet in enumerate(filled_packets(container, stream)):
            if number in wanted:
                if packet.pts is None or packet.pts != ticks[number]:
                    raise CannotCopyError
                packet.pts -= zero
                undated.append(packet)
                if packet.dts is not None:
                    yield from _dated(undated, packet.dts - zero, packet.duration or 1)
                    undated = []
            if number == last:
                break
        else:
            raise VideoError("changed while it was read")
        if undated:
            raise CannotCopyError


def _dated(packets: list[Packet[Stream]], last_dts: int, ticks: int) -> Iterator[_TimedPacket]:
    """Yields packets of which only the last says when it is decoded, the others one after the other before it."""
    for place, packet in enumerate(packets, start=1):
        packet.dts = last_dts - (len(packets) - place) * ticks
        yield float(packet.dts * (packet.time_base or 0)), packet


def _encode(moment: Moment, file: Target, tell: Tell) -> str:
    with open_video(moment.path) as (container, stream):
        suffix, tracks = _sound_tracks(container, is_mp4=True)
        keys = moment.clock.frame_keys[moment.first : moment.end]
        frames = whole_frames(moment.path, moment.packets, keys)
        first = next(frames, None)
        if first is None:
            raise VideoError("has no frame that can be decoded")
        with _opened(file, suffix) as out:
            target = _encoder(out, stream, first.frame, moment.clock.frames_per_second)
            sounds = _sounds(container, out, tracks, first.seconds, moment.end_seconds)
            pictures = _encoded_pictures(target, chain([first], frames), tell)
            _mux(out, target, pictures, sounds)
    return suffix


def _encoder(out: OutputContainer, stream: VideoStream, frame: VideoFrame, rate: float) -> VideoStream:
    """Adds a stream of H.264 that shows frames as the video does: upright, in its colours and shape."""
    name = next(name for name in _ENCODERS if name in av.codecs_available)
    whole_rate = Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
    target = out.add_stream(name, rate=whole_rate, options=_ENCODERS[name])
    assert isinstance(target, VideoStream)
    context = target.codec_context
    context.width, context.height = frame.width - frame.width % 2 or 2, frame.height - frame.height % 2 or 2
    context.pix_fmt = _pixel_format(name, frame)
    context.time_base = _UNIT
    if stream.sample_aspect_ratio:
        context.sample_aspect_ratio = stream.sample_aspect_ratio
    if frame.format.is_rgb:
        context.colorspace, context.color_range = int(Colorspace.ITU709), 1
    else:
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    target.set_display_matrix(display_matrix(frame))
    return target


def _pixel_format(encoder: str, frame: VideoFrame) -> str:
    """Returns the format that players take and that keeps more than 8 bits."""
    formats = {each.name for each in av.Codec(encoder, "w").video_formats or ()}
    is_deep = any(component.bits > 8 for component in frame.format.components)
    if is_deep and "yuv420p10le" in formats:
        return "yuv420p10le"
    return frame.format.name if frame.format.name == "yuvj420p" and "yuvj420p" in formats else "yuv420p"


def _encoded_pictures(target: VideoStream, frames: Iterable[WholeFrame], tell: Tell) -> Iterator[_TimedPacket]:
    """Yields the packets of encoded frames, with times from the first."""
    context = target.codec_context
    zero: float | None = None
    last_pts = -1
    for read in frames:
        zero = read.seconds if zero is None else zero
        picture = read.frame.reformat(
            context.width,
            context.height,
            context.pix_fmt,
            dst_colorspace=Colorspace.ITU709 if read.frame.format.is_rgb else None,
        )
        last_pts = max(round((read.seconds - zero) / _UNIT), last_pts + 1)
        picture.pts, picture.time_base, picture.pict_type = last_pts, _UNIT, PictureType.NONE
        yield from _timed(target.encode(picture))
        tell({})
    yield from _timed(target.encode(None))


def _timed(packets: Iterable[Packet[Stream]]) -> Iterator[_TimedPacket]:
    for packet in packets:
        yield float((packet.pts or 0) * (packet.time_base or 0)), packet


def _sound_tracks(container: InputContainer, *, is_mp4: bool) -> tuple[str, list[AudioStream]]:
    """Returns the suffix of a container that takes the sound, and its tracks."""
    tracks = [track for track in container.streams.audio if track.codec_context]
    return ".mp4" if is_mp4 and all(_codec(track) in _MP4_AUDIO for track in tracks) else ".mkv", tracks


def _sounds(
    container: InputContainer, out: OutputContainer, tracks: list[AudioStream], start_seconds: float, end_seconds: float
) -> list[_TimedPacket]:
    """Adds the tracks of sound to a file, and returns their packets in a stretch of time."""
    known = [track for track in tracks if _codec(track) in out.supported_codecs]
    targets = {track.index: out.add_stream_from_template(track) for track in known}
    if not targets:
        return []
    begin_seconds = container_start_seconds(container) + start_seconds
    sounds: list[_TimedPacket] = []
    done: set[int] = set()
    for packet in filled_packets(container, *known):
        if packet.pts is None or not packet.time_base:
            continue
        seconds = float(packet.pts * packet.time_base) - begin_seconds
        if seconds >= end_seconds - start_seconds:
            done.add(packet.stream_index)
            if done == targets.keys():
                break
        elif seconds >= -_SAME_SECONDS:
            zero = round(begin_seconds / packet.time_base)
            packet.dts = max(0, (packet.pts if packet.dts is None else packet.dts) - zero)
            packet.pts = max(0, packet.pts - zero)
            packet.stream = targets[packet.stream_index]
            sounds.append((seconds, packet))
    return sorted(sounds, key=lambda one: one[0])


def _mux(
    out: OutputContainer, target: VideoStream, pictures: Iterable[_TimedPacket], sounds: list[_TimedPacket]
) -> None:
    """Writes pictures and sound in the order of their times."""
    waiting = deque(sounds)
    for seconds, picture in pictures:
        while waiting and waiting[0][0] <= seconds:
            out.mux(waiting.popleft()[1])
        picture.stream = target
        out.mux(picture)
    for _, sound in waiting:
        out.mux(sound)


def _opened(file: Target, suffix: str) -> OutputContainer:
    return av.open(file, "w", format=_MUXERS[suffix])


def _codec(stream: VideoStream | AudioStream) -> str:
    return stream.codec_context.codec.canonical_name


def _format(container: InputContainer) -> str:
    return container.format.name.split(",")[0]
