"""The choice of the frames that a model sees: pure functions of frame times, with no file in sight.

The published readers count frames; `sample_positions` and `sample_positions_by_second` do exactly what they do.
`sample_clips` is what this project decodes with: the same choice made by timestamps, so that it also holds for a
variable frame rate, and cut into clips, so that a result names a moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.clock import typical_seconds

_ENDLESS_SECONDS = 1e9


@dataclass(frozen=True)
class Stretch:
    """The part of a video that is asked for, as one clip.

    Attributes:
        start_seconds: Start of the part.
        end_seconds: End of the part; None for the end of the video.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None


@dataclass(frozen=True)
class ClipFrames:
    """The times of a clip and the frames chosen from it.

    Attributes:
        start_seconds: Time of its first frame.
        end_seconds: Time at which its last frame ends.
        positions: (K,) int64 with 1 <= K <= F, indexes into the video's frames, ascending.
    """

    start_seconds: float
    end_seconds: float
    positions: NDArray[np.int64]


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Chooses positions (K,), at most `most` of `count`, evenly, both ends among them.

    Example: `spread(5, 3)` is 0, 2, 4; `spread(3, 12)` is 0, 1, 2.

    Returns:
        (min(count, most),) int64, ascending.
    """
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).astype(np.int64)


def sample_positions(
    num_frames: int,
    video_frames_per_second: float,
    *,
    frames_per_second: float,
    max_frames: int,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> NDArray[np.int64]:
    """Chooses frames by counting, as the published MSR-VTT reader does: one in every round(rate / wanted rate).

    A wanted rate of more than twice the video's, where the published reader fails, takes every frame.

    Args:
        num_frames: Number of frames of the video.
        video_frames_per_second: Its rate.
        frames_per_second: The rate to take.
        max_frames: F; of more, F evenly spread ones are kept.
        start_seconds: Where to start; cut to whole seconds. None: at the start.
        end_seconds: Where to stop; cut to whole seconds. None: at the end.

    Returns:
        (K,) int64 with K <= F, ascending.
    """
    first, last = 0, num_frames - 1
    if start_seconds is not None and end_seconds is not None:
        start, end = sorted((max(int(start_seconds), 0), max(int(end_seconds), 0)))
        if start == end:
            end += 1
        first = int(start * video_frames_per_second)
        last = int(min(end * video_frames_per_second, last))
    positions = np.arange(first, last + 1, _stride(video_frames_per_second, frames_per_second))
    return positions[spread(len(positions), max_frames)]


def sample_positions_by_second(
    num_frames: int,
    video_frames_per_second: float,
    *,
    frames_per_second: int,
    max_frames: int | None = None,
    start_seconds: int | None = None,
    end_seconds: int | None = None,
) -> NDArray[np.int64]:
    """Chooses frames second by second, as the published ActivityNet and DiDeMo reader does.

    The second that the end falls on is read too: one more than was asked for.

    Args:
        num_frames: Number of frames of the video.
        video_frames_per_second: Its rate, which this reader cuts to a whole number.
        frames_per_second: Frames to take from each second.
        max_frames: F; of more, F evenly spread ones are kept. None: all are kept.
        start_seconds: The first second; None: 0.
        end_seconds: The last second; None: that of the last frame.

    Returns:
        (K,) int64, ascending.

    Raises:
        InputError: The video has less than one frame in a second, which this reader cannot count.
    """
    whole_rate = int(video_frames_per_second)
    if whole_rate < 1:
        raise InputError(
            f"the video has {video_frames_per_second:g} frames per second and the reader that counts by seconds "
            "needs at least 1; sample it by timestamps instead"
        )
    duration = math.ceil(num_frames / whole_rate)
    last_second = duration if end_seconds is None else min(end_seconds, duration)
    offsets = range(0, whole_rate, max(whole_rate // frames_per_second, 1))[:frames_per_second]
    wanted = (
        second * whole_rate + offset for second in range(start_seconds or 0, last_second + 1) for offset in offsets
    )
    positions = np.array([position for position in wanted if position < num_frames], np.int64)
    return positions if max_frames is None else positions[spread(len(positions), max_frames)]


def sample_clips(
    times_seconds: NDArray[np.float64], sampling: FrameSampling, *, end_seconds: float
) -> Iterator[ClipFrames]:
    """Cuts a video into clips and chooses the frames of each by their times.

    Clip c holds the frames that begin in [c, c + 1) * clip_seconds after the first frame, and lasts until the next clip
    begins: a picture that stands for a minute belongs to the clip in which it began, and whatever times a file claims,
    it has no more clips than frames. What begins less than half a sampling interval before the end joins clip c - 1.

    From the first frame of a clip on, one frame is taken at each sampling interval: the one that is on the screen then;
    a frame that stays there is taken once. Of more than F, F evenly spread ones are kept. The interval is a whole
    number of frames as they typically last in this clip, so that a constant frame rate gives what `sample_positions`
    gives; only a clip slower than half the wanted rate is sampled at that rate itself.

    Example: 12 s at 25 frames per second, one wanted per second: frames 0, 25, ..., 275 in one clip.

    Args:
        times_seconds: (N,) float64, ascending: when each frame appears.
        sampling: Rate, F and length of a clip.
        end_seconds: Time at which the last frame ends, after it begins.

    Yields:
        The clips in order.
    """
    clip_seconds, wanted_seconds = sampling.clip_seconds, 1 / sampling.frames_per_second
    usual_seconds = typical_seconds(times_seconds) or wanted_seconds
    since_first = times_seconds - times_seconds[0] + _slack(usual_seconds, wanted_seconds)
    clip_of_frame = np.floor(since_first / clip_seconds)
    borders = np.flatnonzero(np.diff(clip_of_frame)) + 1
    if len(borders) and clip_of_frame[borders[-1]] - clip_of_frame[borders[-1] - 1] == 1:
        is_short = end_seconds - float(times_seconds[borders[-1]]) < wanted_seconds / 2
        borders = borders[:-1] if is_short else borders
    starts = [0, *borders.tolist()]
    for start, stop in zip(starts, [*starts[1:], len(times_seconds)], strict=True):
        times = times_seconds[start:stop]
        end = float(times_seconds[stop]) if stop < len(times_seconds) else end_seconds
        chosen = start + _sampled(times, wanted_seconds, end_seconds=end)
        yield ClipFrames(float(times[0]), end, chosen[spread(len(chosen), sampling.max_frames)])


def _sampled(times_seconds: NDArray[np.float64], wanted_seconds: float, *, end_seconds: float) -> NDArray[np.int64]:
    """Returns which (K,) of a clip's frames (N,) are on the screen at the sampling times."""
    frame_seconds = typical_seconds(times_seconds) or wanted_seconds
    is_slow = frame_seconds > 2 * wanted_seconds
    interval = wanted_seconds if is_slow else _stride(1 / frame_seconds, 1 / wanted_seconds) * frame_seconds
    slack = _slack(frame_seconds, interval)
    since_first = times_seconds - times_seconds[0]
    # Frame i is on the screen at the sampling times number shown_from[i] to shown_from[i + 1] - 1.
    shown_from = np.ceil((since_first - slack) / interval)
    slack = min(slack, (end_seconds - float(times_seconds[-1])) / 2)
    until = max(1, math.ceil((end_seconds - slack - float(times_seconds[0])) / interval))
    return np.flatnonzero(np.diff(shown_from, append=until) > 0)


def _slack(frame_seconds: float, interval_seconds: float) -> float:
    """Returns how late a frame may be and still be in time: containers round, a gif to hundredths of a second."""
    return min(frame_seconds, interval_seconds, 0.04) / 2


def sample_stretch(
    times_seconds: NDArray[np.float64], sampling: FrameSampling, stretch: Stretch, *, end_seconds: float
) -> ClipFrames:
    """Chooses the frames of one stretch of a video, as `sample_clips` chooses those of a clip.

    The first frame is the one that is on the screen at the start, whenever it appeared.

    Args:
        times_seconds: (N,) float64, see `sample_clips`.
        sampling: Rate and F.
        stretch: Part of the video.
        end_seconds: See `sample_clips`.

    Raises:
        VideoError: The video is over before the stretch begins, or begins only after its end.
    """
    wanted_seconds = 1 / sampling.frames_per_second
    usual_seconds = typical_seconds(times_seconds) or wanted_seconds
    start = stretch.start_seconds
    end = end_seconds if stretch.end_seconds is None else min(stretch.end_seconds, end_seconds)
    slack = min(_slack(usual_seconds, wanted_seconds), max(0.0, end - start) / 2)
    first = max(int(np.searchsorted(times_seconds, start + slack, side="right")) - 1, 0)
    if max(start, float(times_seconds[first])) >= end:
        until = "" if stretch.end_seconds is None else f" to {stretch.end_seconds:g} s"
        raise VideoError(
            f"has no frame from {start:g} s{until}: it lasts from {times_seconds[0]:g} to {end_seconds:g} s"
        )
    stop = max(int(np.searchsorted(times_seconds, end - slack)), first + 1)
    # A picture that has stood for long at the start counts as one that has just appeared.
    times = np.maximum(times_seconds[first:stop], start - usual_seconds)
    (clip,) = sample_clips(times, replace(sampling, clip_seconds=_ENDLESS_SECONDS), end_seconds=end)
    return ClipFrames(max(start, clip.start_seconds), end, first + clip.positions)


def _stride(video_frames_per_second: float, frames_per_second: float) -> int:
    """Returns the number of frames from one sampled frame to the next; at least 1."""
    return max(1, round(video_frames_per_second / frames_per_second))
