"""Cuts a moment out of a video into a file of its own, with its sound.

The packets are copied as they are if the moment begins at a keyframe, give or take a frame: nothing is lost, and it
takes no time. Otherwise the pictures are encoded anew as H.264, and the sound is copied. That happens in a process of
its own, for a file may crash or hang the decoder.
"""

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
from typing import Any, Self, TypeAlias

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

from hbi_engines.operating_system import limit_memory
from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import cannot_write, exists, fitting_name, longest_name
from hbi_infer.video.clock import Clock
from hbi_infer.video.packets import (
    READ_ERRORS,
    VideoPackets,
    container_start_seconds,
    filled_packets,
    in_words,
    open_video,
    scan,
)
from hbi_infer.video.pool import usual_memory_bytes
from hbi_infer.video.reader import WholeFrame, whole_frames
from hbi_infer.video.scaling import display_matrix
from hbi_infer.worker_process import Answer, Tell, WorkerDiedError, run_job

SUFFIXES = (".mp4", ".mkv")
"""Suffixes of the files that are written: mp4 where it takes the codecs, else mkv."""
ANOTHER_FOLDER = "another folder"
SILENCE_SECONDS = 120.0
"""How long a cut may go on without a sign of progress, besides the time for reading the file."""

_MP4_VIDEO = frozenset({"h264", "hevc", "av1", "mpeg4"})
_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})
_COPIED_FORMATS = frozenset({"mov", "matroska", "mpegts", "flv"})
"""Containers whose packets say when they are shown."""
_ENCODERS = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
_MUXERS = {".mp4": "mp4", ".mkv": "matroska"}
_UNIT = Fraction(1, 90_000)
"""Unit of time of encoded pictures, in seconds."""
_SAME_SECONDS = 1e-3
_LEAST_BYTES_PER_SECOND = 4_000_000
_MOST_FRAMES_AWAY = 1.01
"""Distance of a keyframe from the start, in frames of the mean rate, up to which the packets are copied."""

_TimedPacket: TypeAlias = "tuple[float, Packet[Stream]]"
"""Seconds from the start of the moment, and a packet."""


@dataclass(frozen=True)
class SavedClip:
    """A file that a moment was written to.

    Attributes:
        path: Path of the file.
        is_copy: Whether the pictures are those of the video, not encoded anew.
    """

    path: Path
    is_copy: bool


def save_clip(video: Path | str, start_seconds: float, end_seconds: float, target: Path | str) -> SavedClip:
    """Writes a moment of a video to a file, whole or not at all; no file that exists is replaced.

    The first picture is the one that is shown at the start, or its neighbour if that one is a keyframe.

    Args:
        video: Path of the video.
        start_seconds: Time in the video at which the moment begins.
        end_seconds: Time at which it ends.
        target: Path of the file without its suffix, which its content decides; see `SUFFIXES`.

    Raises:
        InputError: The file exists, or cannot be written.
        VideoError: The video cannot be read.
    """
    video, target = Path(video), Path(target)
    for suffix in SUFFIXES:
        _check_new(target.with_name(target.name + suffix))
    new = target.with_name(fitting_name(f".{target.name}", f".{os.getpid()}.new", longest_name(target.parent)))
    job = {"video": str(video), "start_seconds": start_seconds, "end_seconds": end_seconds, "target": str(new)}
    try:
        size_bytes = video.stat().st_size if exists(video) else 0
        answer = run_job(__name__, job, silence_seconds=SILENCE_SECONDS + size_bytes / _LEAST_BYTES_PER_SECOND)
        path = target.with_name(target.name + str(answer["suffix"]))
        _put(new, path)
    except WorkerDiedError as died:
        raise VideoError(f"{video} made the process that was to cut it die {died}: give another video") from died
    finally:
        with suppress(OSError):
            new.unlink()
    return SavedClip(path, bool(answer["is_copy"]))


def _check_new(path: Path) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} exists already and is kept: move it, or give {ANOTHER_FOLDER}")


def _put(new: Path, path: Path) -> None:
    """Gives a file its name, unless another one has it."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        new.replace(path)
    except FileExistsError:
        _check_new(path)
        raise
    except OSError as error:
        raise cannot_write(path, error, instead=ANOTHER_FOLDER) from error


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Cuts one moment in a worker process.

    Args:
        job: The video, its start and end in seconds, and the file to write.
        tell: Sends a sign of progress now and then.

    Returns:
        The suffix that the file wants, and whether its pictures are copied.
    """
    av.logging.set_level(None)
    limit_memory(usual_memory_bytes(1))
    video = Path(job["video"])
    file = _Target(Path(job["target"]))
    try:
        with file:
            moment = _Moment.of(video, job["start_seconds"], job["end_seconds"], tell)
            suffix, is_copy = _cut(moment, file, tell)
    except (VideoError, *READ_ERRORS) as error:
        if file.error:
            raise cannot_write(file.path, file.error, instead=ANOTHER_FOLDER) from error
        raise VideoError(f"{video} {in_words(error)}: give a video that can be played") from error
    return Answer({"suffix": suffix, "is_copy": is_copy})


class _Target:
    """A file to write, which keeps the system's first refusal: FFmpeg passes only some of them on.

    Attributes:
        path: Path of the file.
        error: The refusal, if there was one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self.error = self.error or error
            raise

    def tell(self) -> int:
        return self._file.tell()

    def clear(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._file.truncate()


@dataclass(frozen=True)
class _Moment:
    """A part of a video: frames `first` up to `end` of its clock."""

    path: Path
    packets: VideoPackets
    first: int
    end: int
    start_seconds: float
    end_seconds: float

    @classmethod
    def of(cls, path: Path, start_seconds: float, end_seconds: float, tell: Tell) -> _Moment:
        packets = scan(path, lambda: tell({}))
        times = packets.clock.frame_times_seconds
        first = max(int(np.searchsorted(times, start_seconds + _SAME_SECONDS)) - 1, 0)
        end = max(int(np.searchsorted(times, end_seconds - _SAME_SECONDS)), first + 1)
        return cls(path, packets, first, end, start_seconds, end_seconds)

    @property
    def clock(self) -> Clock:
        return self.packets.clock

    def seconds_of(self, frame: int) -> float:
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


class _CannotCopyError(Exception):
    """The packets of a moment cannot be copied: they do not say when they are shown, or no container takes them."""


def _cut(moment: _Moment, file: _Target, tell: Tell) -> tuple[str, bool]:
    """Writes a moment; returns the suffix that the file wants, and whether the pictures are copied."""
    copied = moment.copied()
    if copied is not None:
        try:
            return _copy(moment, *copied, file), True
        except _CannotCopyError:
            file.clear()
    return _encode(moment, file, tell), False


def _copy(moment: _Moment, frame: int, numbers: NDArray[np.int64], file: _Target) -> str:
    with open_video(moment.path) as (container, stream):
        if _format(container) not in _COPIED_FORMATS:
            raise _CannotCopyError
        is_mp4 = _codec(stream) in _MP4_VIDEO
        suffix, tracks = _sound_tracks(container, is_mp4=is_mp4)
        with _opened(file, suffix) as out:
            if _codec(stream) not in out.supported_codecs:
                raise _CannotCopyError
            target = out.add_stream_from_template(stream)
            sounds = _sounds(container, out, tracks, moment.seconds_of(frame), moment.end_seconds)
            pictures = _copied_pictures(moment, numbers)
            _mux(out, target, pictures, sounds)
    return suffix


def _copied_pictures(moment: _Moment, numbers: NDArray[np.int64]) -> Iterator[_TimedPacket]:
    """Yields the packets (K,) of the pictures, with times from the start of the moment."""
    ticks = moment.clock.ticks
    zero, last, wanted = int(ticks[numbers[0]]), int(numbers[-1]), set(numbers.tolist())
    with open_video(moment.path) as (container, stream):
        undated: list[Packet[Stream]] = []
        for number, packet in enumerate(filled_packets(container, stream)):
            if number in wanted:
                if packet.pts is None or packet.pts != ticks[number]:
                    raise _CannotCopyError
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
            raise _CannotCopyError


def _dated(packets: list[Packet[Stream]], last_dts: int, ticks: int) -> Iterator[_TimedPacket]:
    """Yields packets of which only the last says when it is decoded, the others one after the other before it."""
    for place, packet in enumerate(packets, start=1):
        packet.dts = last_dts - (len(packets) - place) * ticks
        yield float(packet.dts * (packet.time_base or 0)), packet


def _encode(moment: _Moment, file: _Target, tell: Tell) -> str:
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


def _opened(file: _Target, suffix: str) -> OutputContainer:
    return av.open(file, "w", format=_MUXERS[suffix])


def _codec(stream: VideoStream | AudioStream) -> str:
    return stream.codec_context.codec.canonical_name


def _format(container: InputContainer) -> str:
    return container.format.name.split(",")[0]
