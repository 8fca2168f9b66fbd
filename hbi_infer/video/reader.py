"""Decodes the wanted frames of one video file with FFmpeg, through PyAV.

The packets are looked at first (`video_packets`), so that clips are planned on what is there and it is known what each
wanted frame needs. Decoding then jumps over every group of pictures without a wanted frame, stops in each other one at
its last wanted frame, and leaves out the frames before it that no other refers to. The packets jumped over are still
read: that costs a fiftieth of decoding them and works in every container. FFmpeg's own seek would save only that, and
lands behind the keyframe that was asked for in mpg and ts, and before it in wmv.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.clock import NO_TICK
from hbi_infer.video.decoded_video import Clip, DecodedVideo, Problem, VideoInfo, cut_short
from hbi_infer.video.packets import (
    MAX_PIXELS,
    READ_ERRORS,
    TooLargeError,
    VideoPackets,
    filled_packets,
    in_words,
    is_refused_size,
    open_video,
    problem_of,
    scan,
)
from hbi_infer.video.sampling import ClipFrames, Stretch, sample_clips, sample_stretch
from hbi_infer.video.scaling import FrameScaler, displayed_size

_MAX_BYTES = 4 * 2**30
_NO_FRAME = "has no frame that can be decoded"
_SAME_SECONDS = 1e-6

TakeClip: TypeAlias = Callable[[VideoInfo, Clip], None]
"""Takes a clip of a video that is being decoded."""


def probe(path: Path | str) -> VideoInfo:
    """Describes a video. All of the file is read, but only its first frame is decoded.

    Raises:
        VideoError: The file cannot be read as a video; the message says why.
    """
    path = Path(path)
    try:
        packets = scan(path, _nothing)
        reading = _Reading(path, packets, packets.clock.frame_keys[:1])
        for read in reading.frames():
            return read.info
        raise VideoError(packets.damage or reading.damage or _NO_FRAME)
    except (VideoError, *READ_ERRORS) as error:
        raise VideoError(f"{str(path)!r} {in_words(error)}") from error


def decode(path: Path | str, sampling: FrameSampling, *, stretch: Stretch | None = None) -> DecodedVideo:
    """Decodes a video's sampled frames. A bad file gives status `partial` or `failed`, never an exception.

    All frames are held in memory: half a gigabyte an hour at one 224-pixel frame a second; at most 4 GiB are kept.

    Args:
        path: The file.
        sampling: Choice and size of frames, and length of a clip.
        stretch: Part of the video that is to be its only clip; None for the clips of the whole video.
    """
    clips: list[Clip] = []
    video = decode_clips(path, sampling, lambda _info, clip: clips.append(clip), stretch=stretch)
    return replace(video, clips=tuple(clips))


def decode_clips(
    path: Path | str,
    sampling: FrameSampling,
    take: TakeClip,
    *,
    stretch: Stretch | None = None,
    progress: Callable[[], None] | None = None,
) -> DecodedVideo:
    """Decodes a video as `decode` does, and hands over each clip as soon as it is there.

    Args:
        path: The file.
        sampling: Choice and size of frames, and length of a clip.
        take: Called with each clip.
        stretch: Part of the video that is to be its only clip; None for the clips of the whole video.
        progress: Called while the packets are read; see `scan`.

    Returns:
        The video without its clips.
    """
    path = Path(path)
    started = time.perf_counter()
    info: VideoInfo | None = None
    end_seconds = 0.0
    problem: Problem = "damaged"
    try:
        packets = scan(path, progress or _nothing)
        clock = packets.clock
        if stretch is None:
            plan = list(sample_clips(clock.frame_times_seconds, sampling, end_seconds=clock.end_seconds))
        else:
            plan = [sample_stretch(clock.frame_times_seconds, sampling, stretch, end_seconds=clock.end_seconds)]
        wanted = clock.frame_keys[np.concatenate([clip.positions for clip in plan])]
        reading = _Reading(path, packets, wanted)
        for video, clip in _clips(reading.frames(), plan, sampling):
            info, end_seconds = video, clip.end_seconds
            take(video, clip)
        faulty = packets if packets.damage else reading
        reason, problem = faulty.damage, faulty.problem
    except (VideoError, *READ_ERRORS) as error:
        reason, problem = in_words(error), problem_of(error)
        reason = cut_short(reason, end_seconds) if info else reason
    seconds = time.perf_counter() - started
    if not info:
        return DecodedVideo(path, "failed", reason or _NO_FRAME, None, (), seconds, problem, stretch)
    if reason:
        return DecodedVideo(path, "partial", reason, info, (), seconds, problem, stretch)
    return DecodedVideo(path, "ok", "", info, (), seconds, stretch=stretch)


def read_frames(path: Path | str, seconds: NDArray[np.float64], *, image_size: int) -> NDArray[np.uint8]:
    """Decodes again some frames that `decode` gave, at another size; no other frame is decoded but what they need.

    Args:
        path: The file.
        seconds: (K,) their times, ascending.
        image_size: H = W, in pixels.

    Returns:
        (K, H, W, 3) uint8, RGB.

    Raises:
        VideoError: The file cannot be read, or has no frames at these times any more.
    """
    scaler = FrameScaler(image_size)
    return np.stack(_read_scaled(Path(path), seconds, scaler.square))


def read_picture(path: Path | str, seconds: float, *, longest_side: int) -> NDArray[np.uint8]:
    """Decodes again one frame that `decode` gave, whole.

    Args:
        path: The file.
        seconds: Its time.
        longest_side: Width or height in pixels, whichever is larger.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        VideoError: The file cannot be read, or has no frame at this time any more.
    """
    scaler = FrameScaler(longest_side, fit="pad")
    [picture] = _read_scaled(Path(path), np.array([seconds]), scaler.whole)
    return picture


def _read_scaled(
    path: Path, seconds: NDArray[np.float64], scaled: Callable[..., NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    """Decodes the frames at some times (K,) and scales them."""
    try:
        packets = scan(path, _nothing)
        times = packets.clock.frame_times_seconds
        positions = np.minimum(np.searchsorted(times, seconds - _SAME_SECONDS), len(times) - 1)
        if not np.allclose(times[positions], seconds, rtol=0, atol=_SAME_SECONDS):
            raise VideoError("is not the video that it was: its frames have other times")
        reading = _Reading(path, packets, packets.clock.frame_keys[positions])
        pictures = {read.number: scaled(read.frame, pixel_aspect=read.pixel_aspect) for read in reading.frames()}
        if len(pictures) < len(seconds):
            raise VideoError(reading.damage or _NO_FRAME)
        return [pictures[number] for number in range(len(seconds))]
    except (VideoError, *READ_ERRORS) as error:
        raise VideoError(f"{str(path)!r} {in_words(error)}") from error


class WholeFrame(NamedTuple):
    """A decoded frame as it is stored, and its time."""

    seconds: float
    frame: VideoFrame


def whole_frames(path: Path | str, packets: VideoPackets, wanted: NDArray[np.int64]) -> Iterator[WholeFrame]:
    """Yields frames of a video uncut, in order; damaged ones are left out.

    Args:
        path: The file.
        packets: Packets as `scan` found them.
        wanted: (W,) int64, ascending, some of `packets.clock.frame_keys`.

    Raises:
        VideoError: The file has changed. The message is what is wrong, without the file's name.
    """
    for read in _Reading(Path(path), packets, wanted).frames():
        yield WholeFrame(read.seconds, read.frame)


class _ReadFrame(NamedTuple):
    """A wanted frame: which of the wanted, its time, the frame and its video."""

    number: int
    seconds: float
    frame: VideoFrame
    info: VideoInfo
    pixel_aspect: float


def _clips(
    frames: Iterator[_ReadFrame], plan: list[ClipFrames], sampling: FrameSampling
) -> Iterator[tuple[VideoInfo, Clip]]:
    """Puts the wanted frames, as they come, into the clips that they were planned for."""
    clip_of_wanted = np.repeat(np.arange(len(plan)), [len(clip.positions) for clip in plan])
    scaler = FrameScaler.of(sampling)
    size_bytes = 0
    for number, reads in groupby(frames, key=lambda read: int(clip_of_wanted[read.number])):
        images = np.zeros((sampling.max_frames, sampling.image_size, sampling.image_size, 3), np.uint8)
        timestamps = np.full(sampling.max_frames, np.nan)
        info: VideoInfo | None = None
        error: VideoError | MemoryError | None = None
        try:
            for slot, read in enumerate(reads):
                images[slot] = scaler.square(read.frame, pixel_aspect=read.pixel_aspect)
                timestamps[slot], info = read.seconds, read.info
                size_bytes += images[slot].nbytes
        except (VideoError, MemoryError) as met:
            error = met  # the frames before it are good
        clip = plan[number]
        if info:
            yield info, Clip(clip.start_seconds, clip.end_seconds, images, timestamps, ~np.isnan(timestamps))
        if error:
            raise error
        if size_bytes > _MAX_BYTES:
            raise TooLargeError("is too long")


class _Reading:
    """One pass over a file that decodes the wanted frames.

    Args:
        path: The file.
        packets: Packets as `scan` found them.
        wanted: (W,) int64, ascending, some of `packets.clock.frame_keys`.

    Attributes:
        damage: First fault that was met, or "".
        problem: Kind of that fault.
    """

    def __init__(self, path: Path, packets: VideoPackets, wanted: NDArray[np.int64]) -> None:
        self._path, self._packets, self._clock, self._wanted = path, packets, packets.clock, wanted
        self._num_decoded = 0
        self.damage = ""
        self.problem: Problem = "damaged"

    def frames(self) -> Iterator[_ReadFrame]:
        """Decodes. A frame that is damaged or hidden gives way to the next good one before the next wanted one."""
        done, info = 0, None
        with open_video(self._path) as (container, stream):
            # Files are decoded in parallel; to start threads for each costs a short one as much as decoding it.
            stream.codec_context.thread_count = 1
            aspect = float(stream.sample_aspect_ratio or 1)
            aspect = aspect if 0.25 <= aspect <= 4 else 1.0
            for key, frame in self._decoded(container, stream):
                count = int(np.searchsorted(self._wanted, key, side="right"))
                if count <= done:
                    continue
                if frame.is_corrupt:
                    self._note_damage(key, "incomplete data")
                    continue
                info = info or self._describe(container, stream, frame, aspect)
                yield _ReadFrame(count - 1, self._seconds(key), frame, info, aspect)
                done = count
                if done == len(self._wanted):
                    return

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[int, VideoFrame]]:
        """Decode what the wanted frames need; gives unwanted ones too, each with what it is known by, ascending."""
        ticks, context = self._clock.ticks, stream.codec_context
        is_needed, is_restart = needed_packets(self._packets, self._wanted)
        is_referred_to_only = self._clock.is_timed & ~np.isin(ticks, self._wanted)
        try:
            for number, packet in enumerate(filled_packets(container, stream)):
                if number == len(ticks):
                    if self._packets.damage:  # looking at the packets ended here too
                        break
                    raise VideoError("changed while it was read")
                if not is_needed[number]:
                    continue
                if is_restart[number]:
                    yield from self._decode(stream, None)
                    context.flush_buffers()
                if self._clock.is_timed and packet.pts != ticks[number]:
                    packet.pts = packet.dts = None if ticks[number] == NO_TICK else int(ticks[number])
                context.skip_frame = "NONREF" if is_referred_to_only[number] else "DEFAULT"
                yield from self._decode(stream, packet)
            yield from self._decode(stream, None)
        except MemoryError:
            raise
        except READ_ERRORS as error:
            self.damage = self.damage or f"could be read only in part ({in_words(error)})"

    def _decode(self, stream: VideoStream, packet: Packet[Stream] | None) -> Iterator[tuple[int, VideoFrame]]:
        """Decodes one packet, or with None the frames that the decoder still holds."""
        try:
            frames = stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except READ_ERRORS as error:
            if is_refused_size(error, stream.codec_context) and not self.damage:
                self.damage, self.problem = f"has frames of more than {MAX_PIXELS // 10**6} million pixels", "too_large"
            self._note_damage(packet.pts if packet else None, in_words(error))
            return
        for frame in frames:
            key = frame.pts if frame.pts is not None else frame.dts
            if not self._clock.is_timed:
                key = self._num_decoded
                self._num_decoded += 1
            if key is not None:
                yield key, frame

    def _seconds(self, key: int) -> float:
        """Returns the time of the frame that is shown at a key."""
        position = int(np.searchsorted(self._clock.frame_keys, key, side="right")) - 1
        return float(self._clock.frame_times_seconds[max(position, 0)])

    def _note_damage(self, key: int | None, what: str) -> None:
        """Keeps the first fault."""
        where = "" if key is None or not self._clock.is_timed else f" at {self._seconds(key):.1f} s"
        self.damage = self.damage or f"is damaged{where}: not every frame could be decoded ({what})"

    def _describe(self, container: InputContainer, stream: VideoStream, frame: VideoFrame, aspect: float) -> VideoInfo:
        """Describes the video by its packets and first frame."""
        clock = self._clock
        width, height = displayed_size(frame, aspect)
        names = container.format.name.split(",")
        suffix = self._path.suffix[1:].lower()
        return VideoInfo(
            width=width,
            height=height,
            duration_seconds=clock.end_seconds if clock.states_end else None,
            frames_per_second=clock.frames_per_second if len(clock.frame_keys) > 1 else None,
            rotation_degrees=round(-frame.rotation / 90) * 90 % 360,
            codec=stream.codec_context.codec.canonical_name,
            container=suffix if suffix in names else names[0],
        )


def needed_packets(packets: VideoPackets, wanted: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Marks the packets that have to be decoded for the wanted frames.

    A group is a keyframe and what follows it up to the next. Of a group with wanted frames its start is needed, up to
    the last of them; and where one is shown before its own keyframe, also all of the group before.

    Args:
        packets: Packets of the whole video, in decoding order.
        wanted: (W,) int64, ascending, some of `packets.clock.frame_keys`.

    Returns:
        (N,) bool, what is needed; and (N,) bool, the keyframes with a gap before them: the decoder has to be emptied.
    """
    ticks = packets.clock.ticks
    count = len(ticks)
    if not packets.clock.is_timed:
        return np.ones(count, bool), np.zeros(count, bool)
    starts = np.flatnonzero(packets.is_key | (np.arange(count) == 0))
    ends = np.append(starts[1:], count)
    group_of = np.searchsorted(starts, np.arange(count), side="right") - 1
    order = np.argsort(ticks, kind="stable")
    at = order[np.searchsorted(ticks, wanted, sorter=order)]
    until = starts.copy()
    np.maximum.at(until, group_of[at], at + 1)
    is_before_own_key = ticks[at] < ticks[starts[group_of[at]]]
    before = np.unique(group_of[at[is_before_own_key]]) - 1
    before = before[before >= 0]
    until[before] = ends[before]
    follows_gap = (until > starts) & np.append(False, until[:-1] < ends[:-1])
    is_restart = np.zeros(count, bool)
    is_restart[starts[follows_gap]] = True
    return np.arange(count) < until[group_of], is_restart


def _nothing() -> None:
    """Reports no progress."""
