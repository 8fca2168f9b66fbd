"""Opens a video file and reads its packets, without decoding any.

That costs about 6 microseconds a packet, a fiftieth of decoding it, and gives real timestamps and keyframes: nothing
that a header claims has to be believed.
"""

from __future__ import annotations

import errno
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

from hbi_engines.operating_system import memory_limit_bytes, open_to_read
from hbi_infer.errors import VideoError
from hbi_infer.video.clock import MOST_DELAY, NO_TICK, STATED_END_SECONDS, Clock, PacketTimes, read_clock
from hbi_infer.video.decoded_video import Problem
from hbi_infer.video.opened_files import opened_file, status
from hbi_infer.video.sandbox import fences

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
_PACKETS_PER_PROGRESS = 1_000
_BEGINNING_BYTES = 4096
_READ_BYTES = 128 * 1024
"""Size of a read from a file that was given open, which costs more than one by FFmpeg itself."""

READ_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)


_ENCRYPTED = "is encrypted (DRM) and cannot be decoded: give a copy that any player can play"
_ENCRYPTED_TAGS = frozenset({"encv", "drmi"})
_ENCRYPTED_METADATA = frozenset({"enc_key_id", "asf_protection_type"})
"""Keys of the metadata that FFmpeg gives an encrypted matroska stream and a protected asf file."""


class NotOpenedError(VideoError):
    """A file that the system does not let be opened, so that nothing is known of what is in it."""


class TooLargeError(VideoError):
    """A video that needs more memory, or has larger frames or more of them, than is allowed."""


@dataclass(frozen=True)
class VideoPackets:
    """The N packets of a video stream in decoding order, one to a frame, and when the frames are shown.

    Attributes:
        is_key: (N,) bool: decoding can start here.
        clock: When the frames are shown.
        damage: Fault of the file, or "".
        problem: Kind of that fault.
    """

    is_key: NDArray[np.bool_]
    clock: Clock
    damage: str
    problem: Problem


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and finds its video stream.

    Raises:
        VideoError: There is none. The message is what is wrong, without the file's name.
    """
    check_file(path)
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file", "max_streams": str(_MAX_STREAMS)}
    try:
        # An absolute path cannot be taken for an address or an option.
        container = av.open(
            opened_file(path) or str(path.absolute()),
            "r",
            options=DECODER_OPTIONS,
            container_options=options,
            metadata_errors="replace",
            buffer_size=_READ_BYTES,
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
        if _is_encrypted(container, stream):
            raise VideoError(_ENCRYPTED)
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
        # FFmpeg's guess for an avi is wrong where frames are stored in another order.
        is_guess = container.format.name == "avi" and bool(stream.codec_context.has_b_frames)
        delay = _delay(path) if is_guess else 0
        clock = read_clock(_times(container, stream, seen, is_presented=not is_guess, delay=delay))
        if seen.is_encrypted:
            raise VideoError(_ENCRYPTED)
        if not len(clock.frame_keys):
            raise VideoError(seen.read_error or "has a video stream without any frame")
        return VideoPackets(np.array(seen.is_key, bool), clock, _damage(container, seen, clock), seen.problem)


def filled_packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
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
    if isinstance(error, OSError) and error.errno == errno.EACCES and fences().is_closed:
        return "makes the decoder open another file, which its sandbox forbids"
    if isinstance(error, OSError) and error.errno == errno.EPERM:
        return "the system does not let this program read it (macOS: Privacy & Security, Files and Folders)"
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

    presentation: array[int] = field(default_factory=lambda: array("q"))
    decoding: array[int] = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_shown: bytearray = field(default_factory=bytearray)
    last_tick: int = NO_TICK
    last_duration: int = 0
    sound_end_seconds: float = -np.inf
    damaged_at_seconds: float | None = None
    is_encrypted: bool = False
    read_error: str = ""
    problem: Problem = "damaged"


def _look(container: InputContainer, stream: VideoStream, progress: Callable[[], None]) -> _Seen:
    """Reads all packets, those of sound too: they tell how far the file goes."""
    seen = _Seen()
    unit_seconds = {each.index: float(each.time_base or 0) for each in container.streams}
    heard = {each.index for each in container.streams if each.type in ("audio", "video")}
    # In a transport stream the mark means only that a counter jumped, as it does where recordings are joined.
    marks_are_meant = container.format.name != "mpegts"
    try:
        for number, packet in enumerate(filled_packets(container)):
            if number % _PACKETS_PER_PROGRESS == 0:
                progress()
            tick = packet.dts if packet.pts is None else packet.pts
            if packet.stream_index != stream.index:
                if tick is not None and packet.stream_index in heard:
                    end_seconds = (tick + (packet.duration or 0)) * unit_seconds[packet.stream_index]
                    seen.sound_end_seconds = max(seen.sound_end_seconds, end_seconds)
                continue
            if len(seen.is_key) == MAX_PACKETS:
                seen.read_error, seen.problem = f"it has more than {MAX_PACKETS:,} frames", "too_large"
                break
            seen.presentation.append(NO_TICK if packet.pts is None else packet.pts)
            seen.decoding.append(NO_TICK if packet.dts is None else packet.dts)
            is_key = packet.is_keyframe
            seen.is_key.append(is_key)
            seen.is_shown.append(not packet.is_discard)
            if tick is not None and tick >= seen.last_tick and not packet.is_discard:
                seen.last_tick, seen.last_duration = tick, packet.duration or 0
            if packet.is_corrupt and marks_are_meant and seen.damaged_at_seconds is None:
                seen.damaged_at_seconds = (tick or 0) * unit_seconds[stream.index]
            if is_key and packet.has_sidedata("encryption_info"):
                seen.is_encrypted = True
    except READ_ERRORS as error:
        seen.read_error, seen.problem = in_words(error), problem_of(error)
    return seen


def _delay(path: Path) -> int:
    """Returns the number of packets that the decoder of a file takes before it gives a frame, less one."""
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        for number, packet in enumerate(filled_packets(container, stream)):
            try:
                if number == MOST_DELAY or stream.codec_context.decode(packet):
                    return number
            except READ_ERRORS:
                continue
    return 0


def _times(
    container: InputContainer, stream: VideoStream, seen: _Seen, *, is_presented: bool, delay: int
) -> PacketTimes:
    """Returns the times of the packets that were seen."""
    name = container.format.name
    tick_seconds = float(stream.time_base or 0)
    return PacketTimes(
        presentation=np.array(seen.presentation, np.int64),
        decoding=np.array(seen.decoding, np.int64),
        is_shown=np.array(seen.is_shown, bool),
        tick_seconds=tick_seconds,
        start_seconds=container_start_seconds(container),
        last_seconds=seen.last_duration * tick_seconds,
        sound_end_seconds=seen.sound_end_seconds,
        stated_seconds=_stated_seconds(container),
        reckoned_seconds=container.duration / av.time_base if container.duration else None,
        stated_rate=float(stream.guessed_rate or stream.average_rate or 0),
        is_presented=is_presented,
        delay=delay,
        is_stream=name in ("mpegts", "mpeg"),
    )


def container_start_seconds(container: InputContainer) -> float:
    """Returns the start of a container on its own clock."""
    return (container.start_time or 0) / av.time_base


def _stated_seconds(container: InputContainer) -> float | None:
    """Returns the duration that the header of a container states; None for a format without one."""
    name = container.format.name.split(",")[0]
    if name not in _STATES_DURATION or not container.duration:
        return None
    # These state the end on their own clock.
    start_seconds = max(0.0, container_start_seconds(container)) if name in ("matroska", "asf") else 0.0
    return max(0.0, container.duration / av.time_base - start_seconds)


def _damage(container: InputContainer, seen: _Seen, clock: Clock) -> str:
    """Returns the fault of a file that its packets show; "" if there is none."""
    lasts = f"{clock.end_seconds:.1f} s"
    if seen.read_error:
        return f"could be read only as far as {lasts} ({seen.read_error})"
    if seen.damaged_at_seconds is not None:
        at_seconds = seen.damaged_at_seconds - container_start_seconds(container)
        return f"is damaged or cut short at {max(0.0, at_seconds):.1f} s"
    stated = _stated_seconds(container)
    if stated is not None and stated > clock.end_seconds + max(STATED_END_SECONDS, 0.05 * stated):
        return f"is cut short: it says that it lasts {stated:.1f} s and ends after {lasts}"
    return clock.fault


def _is_encrypted(container: InputContainer, stream: VideoStream) -> bool:
    """Returns whether a file says that its pictures are encrypted; the packets of an mp4 say it themselves."""
    keys = {key.lower() for key in (*container.metadata, *stream.metadata)}
    return stream.codec_context.codec_tag in _ENCRYPTED_TAGS or not keys.isdisjoint(_ENCRYPTED_METADATA)


def check_file(path: Path) -> None:
    """Refuses files that cannot be videos before FFmpeg sees them: a pipe would make it wait for ever.

    Raises:
        VideoError: It is no regular file, empty, or cannot be looked at; the message is without the file's name.
    """
    try:
        found = status(path)
    except (OSError, ValueError) as error:
        raise NotOpenedError(f"cannot be opened: {in_words(error)}") from error
    if stat.S_ISDIR(found.st_mode):
        raise VideoError("is a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise VideoError("is not a regular file")
    if found.st_size == 0:
        raise VideoError("is empty")


def open_file(path: Path) -> int:
    """Opens a file for another process; returns its descriptor.

    Raises:
        VideoError: It cannot be opened, or cannot be a video; the message is without the file's name.
    """
    check_file(path)
    try:
        return open_to_read(path)
    except OSError as error:
        raise NotOpenedError(f"cannot be opened: {in_words(error)}") from error


def _why_not_opened(path: Path, error: av.FFmpegError) -> VideoError:
    """Returns the error that says why FFmpeg refused a file."""
    if isinstance(error, MemoryError):
        return TooLargeError(f"{in_words(error)}, or has more than {_MAX_STREAMS} streams")
    try:
        with opened_file(path) or path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError as refused:
        return NotOpenedError(f"cannot be opened: {in_words(refused)}")
    if not isinstance(error, av.error.InvalidDataError | av.error.ArgumentError | av.error.EOFError):
        return VideoError(f"cannot be read: {in_words(error)}")
    if beginning[4:8] == b"ftyp":
        return VideoError("is cut short or damaged: the index (moov) of this mp4 is missing")
    if _is_text(beginning):
        return VideoError("is a text file, not a video")
    return VideoError("is not a video that can be read here, or its beginning is damaged")


def _is_text(beginning: bytes) -> bool:
    """Returns whether a file that begins so is text in UTF-8, as the source code in a .ts file is."""
    try:
        text = beginning.decode()
    except UnicodeDecodeError as error:
        if error.start < _BEGINNING_BYTES - 4:  # else its last character is cut in two
            return False
        text = beginning[: error.start].decode()
    return all(character.isprintable() or character in "\t\n\r\f\v\ufeff" for character in text)
