"""Opens a video file and reads its packets, without decoding any.

That costs about 6 microseconds a packet, a fiftieth of decoding it, and gives real timestamps and keyframes: nothing
that a header claims has to be believed.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hbi_engines.operating_system import memory_limit_bytes
from hbi_infer.errors import VideoError
from hbi_infer.video.decoded_video import Problem

# Only demuxers that read one plain file: a playlist named x.mp4 must not make FFmpeg open other files or addresses.
_DEMUXERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,asf,flv,gif,ogg,mpegvideo,h264,hevc"
# These write a duration into their header; for the others FFmpeg makes a guess.
_STATES_DURATION = frozenset({"mov", "matroska", "asf", "flv"})
MAX_SIDE = 16_384
MAX_PIXELS = 80_000_000
"""Largest area of a frame: a decoder of the usual kind needs less than 2 GB for it."""
# FFmpeg rounds a width up before it compares.
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS + 128 * MAX_SIDE)}
"""Options of every decoder: a frame may change its size within a video, beyond what its header says."""
MAX_PACKETS = 10_000_000
"""Largest number of packets that are looked at of a video: four days at 30 frames a second."""
_MAX_STREAMS = 1000
_NO_TICK = -(2**63)
_USUAL_RATE = 25.0
_PACKETS_PER_PROGRESS = 1_000

READ_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)


class NotOpenedError(VideoError):
    """A file that the system does not let be opened, so that nothing is known of what is in it."""


class TooLargeError(VideoError):
    """A video that needs more memory, or has larger frames or more of them, than is allowed."""


@dataclass(frozen=True)
class VideoPackets:
    """The packets of a video stream in decoding order, one to a frame, and when the frames are shown.

    Attributes:
        ticks: (N,) int64, when each packet's frame is shown, in the stream's own unit.
        is_key: (N,) bool: decoding can start here.
        is_timed: False: the file has no timestamps, or they jump back. A frame is then known by its number.
        frame_keys: (M,) int64, ascending: what each shown frame is known by, its tick or else its number.
        frame_times_seconds: (M,) float64, ascending, counted from the first shown frame.
        frame_seconds: How long a frame is shown, on average.
        damage: Fault of the file, or "".
        problem: Kind of that fault.
    """

    ticks: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_timed: bool
    frame_keys: NDArray[np.int64]
    frame_times_seconds: NDArray[np.float64]
    frame_seconds: float
    damage: str
    problem: Problem


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and finds its video stream.

    Raises:
        VideoError: There is none. The message is what is wrong, without the file's name.
    """
    _check_file(path)
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file", "max_streams": str(_MAX_STREAMS)}
    try:
        # An absolute path cannot be taken for an address or an option.
        container = av.open(
            str(path.absolute()),
            "r",
            options=DECODER_OPTIONS,
            container_options=options,
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        raise _why_not_opened(path, error) from error
    with container:
        videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
        if not videos:
            cover = ", only a picture as its cover" if container.streams.video else ""
            raise VideoError(f"has no video stream{cover}")
        best = container.streams.best("video")
        stream = best if isinstance(best, VideoStream) and best in videos else videos[0]
        context = stream.codec_context
        if not context:
            raise VideoError("is of a codec that cannot be decoded here")
        check_size(context.width, context.height, "says that its frames have")
        context.options = DECODER_OPTIONS
        yield container, stream


def check_size(width: int, height: int, says: str) -> None:
    """Refuses frames that are too large to be decoded.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        says: Start of the message, such as "has frames of".

    Raises:
        TooLargeError: They are. The message is what is wrong, without the file's name.
    """
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(f"{says} {width} x {height} pixels; at most {MAX_SIDE} a side are read")
    if width * height > MAX_PIXELS:
        raise TooLargeError(f"{says} {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are read")


def scan(path: Path, progress: Callable[[], None]) -> VideoPackets:
    """Reads every packet of a file.

    Args:
        path: The file.
        progress: Called at each thousand packets. A `TimeoutError` that it raises ends the reading: then the video
            ends there, and is damaged.

    Raises:
        VideoError: There is no video. The message is what is wrong, without the file's name.
    """
    with open_video(path) as (container, stream):
        seen = _look(container, stream, progress)
        ticks = np.array(seen.ticks, np.int64)
        is_shown = np.array(seen.is_shown, bool)
        timed_ticks = ticks[is_shown & (ticks != _NO_TICK)]
        # An avi has no presentation times: FFmpeg's are wrong where frames are stored in another order.
        is_reordered_avi = container.format.name == "avi" and stream.codec_context.has_b_frames
        is_timed = len(timed_ticks) > len(ticks) / 2 and not seen.jumps_back and not is_reordered_avi
        tick_seconds = float(stream.time_base or 0)
        # Only a file without timestamps, or with a single one, has to be asked for its rate.
        stated_rate = float(stream.guessed_rate or stream.average_rate or _USUAL_RATE)
        frame_seconds = 1 / (stated_rate if 1 <= stated_rate <= 240 else _USUAL_RATE)
        if is_timed:
            keys = np.unique(timed_ticks)
            times = (keys.astype(np.float64) - float(keys[0])) * tick_seconds
            if len(keys) > 1:
                frame_seconds = float(times[-1]) / (len(keys) - 1)
            origin_seconds = float(keys[0]) * tick_seconds
        else:
            keys = np.arange(len(ticks))
            times = keys.astype(np.float64) * frame_seconds
            origin_seconds = 0.0
        if not len(keys):
            raise VideoError(seen.read_error or "has a video stream without any frame")
        end_seconds = max(seen.end_seconds, origin_seconds + float(times[-1]) + frame_seconds)
        return VideoPackets(
            ticks=ticks,
            is_key=np.array(seen.is_key, bool),
            is_timed=is_timed,
            frame_keys=keys,
            frame_times_seconds=times,
            frame_seconds=frame_seconds,
            damage=_damage(container, seen, origin_seconds=origin_seconds, end_seconds=end_seconds),
            problem=seen.problem,
        )


def filled_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[Stream]]:
    """Yields the packets of some streams, or of all; leaves out those without data, dropped frames and the end mark."""
    try:
        for packet in container.demux(*streams):
            if packet.size:
                yield packet
    except IndexError:
        return  # PyAV 18.1 raises it at the end of a file in which another stream began midway


def in_words(error: BaseException) -> str:
    """Returns the meaning of an exception, without the file's name."""
    if isinstance(error, MemoryError):
        limit = memory_limit_bytes()
        most = "memory than there is" if limit is None else f"than {limit / 1e9:.1f} GB of memory"
        return f"needs more {most} to decode"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def is_refused_size(error: BaseException, context: VideoCodecContext) -> bool:
    """Returns whether a decoder refused a frame for its size; FFmpeg forgets that size."""
    return isinstance(error, av.error.ArgumentError) and not context.width


def problem_of(error: BaseException) -> Problem:
    """Returns the kind of problem with a video that an exception tells."""
    if isinstance(error, NotOpenedError):
        return "not_opened"
    if isinstance(error, MemoryError | TooLargeError):
        return "too_large"
    return "too_slow" if isinstance(error, TimeoutError) else "damaged"


@dataclass
class _Seen:
    """Notes about the packets while they pass; those of the video in decoding order."""

    ticks: array[int] = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_shown: bytearray = field(default_factory=bytearray)
    jumps_back: bool = False
    damaged_at_seconds: float | None = None
    read_error: str = ""
    problem: Problem = "damaged"
    end_seconds: float = 0.0


def _look(container: InputContainer, stream: VideoStream, progress: Callable[[], None]) -> _Seen:
    """Reads all packets, those of sound too: they tell how far the file goes."""
    seen = _Seen()
    unit_seconds = {each.index: float(each.time_base or 0) for each in container.streams}
    decoded_at_seconds = -np.inf
    # In a transport stream the mark means only that a counter jumped, as it does where recordings are joined.
    marks_are_meant = container.format.name != "mpegts"
    try:
        for number, packet in enumerate(filled_packets(container)):
            if number % _PACKETS_PER_PROGRESS == 0:
                progress()
            unit = unit_seconds[packet.stream_index]
            tick = packet.dts if packet.pts is None else packet.pts
            if tick is not None:
                seen.end_seconds = max(seen.end_seconds, (tick + (packet.duration or 0)) * unit)
            if packet.stream_index != stream.index:
                continue
            if len(seen.ticks) == MAX_PACKETS:
                seen.read_error, seen.problem = f"it has more than {MAX_PACKETS:,} frames", "too_large"
                break
            seen.ticks.append(_NO_TICK if packet.pts is None else packet.pts)
            seen.is_key.append(packet.is_keyframe)
            seen.is_shown.append(not packet.is_discard)
            if packet.is_corrupt and marks_are_meant and seen.damaged_at_seconds is None:
                seen.damaged_at_seconds = (tick or 0) * unit
            if packet.dts is not None:
                seen.jumps_back |= packet.dts * unit < decoded_at_seconds - 1
                decoded_at_seconds = packet.dts * unit
    except READ_ERRORS as error:
        seen.read_error, seen.problem = in_words(error), problem_of(error)
    return seen


def _damage(container: InputContainer, seen: _Seen, *, origin_seconds: float, end_seconds: float) -> str:
    """Returns the fault of a file that its packets show; "" if there is none."""
    lasts = f"{end_seconds - origin_seconds:.1f} s"
    if seen.read_error:
        return f"could be read only as far as {lasts} ({seen.read_error})"
    if seen.damaged_at_seconds is not None:
        return f"is damaged or cut short at {max(0.0, seen.damaged_at_seconds - origin_seconds):.1f} s"
    if container.format.name.split(",")[0] in _STATES_DURATION and container.duration:
        stated_seconds = container.duration / av.time_base
        if stated_seconds > end_seconds + max(0.5, 0.05 * stated_seconds):
            return f"is cut short: it says that it lasts {stated_seconds:.1f} s and ends after {lasts}"
    return ""


def _check_file(path: Path) -> None:
    """Refuses files that cannot be videos before FFmpeg sees them: a pipe would make it wait for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise NotOpenedError(f"cannot be opened: {in_words(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError("is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("is not a regular file")
    if status.st_size == 0:
        raise VideoError("is empty")


def _why_not_opened(path: Path, error: av.FFmpegError) -> VideoError:
    """Returns the error that says why FFmpeg refused a file."""
    if isinstance(error, MemoryError):
        return TooLargeError(f"{in_words(error)}, or has more than {_MAX_STREAMS} streams")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as refused:
        return NotOpenedError(f"cannot be opened: {in_words(refused)}")
    if not isinstance(error, av.error.InvalidDataError | av.error.ArgumentError | av.error.EOFError):
        return VideoError(f"cannot be read: {in_words(error)}")
    if head[4:] == b"ftyp":
        return VideoError("is cut short or damaged: the index (moov) of this mp4 is missing")
    return VideoError("is not a video that can be read here, or its beginning is damaged")
