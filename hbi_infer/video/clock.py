"""The clock of a video: when each frame is shown, and until when.

The rule, in every container:

- A time is the time at which a player shows the frame, counted from the start of the container: FFmpeg's `start_time`,
  the start of its earliest stream, be it sound. A container that states none starts where its own clock is 0. A frame
  before the start is shown at the start.
- A frame lasts until the next one. The last frame lasts for its own duration or until the container ends, whichever is
  later. The container ends with its last packet, of sound or pictures; the end in its header is taken where it is less
  than half a second after that. Where no packet says how long the last frame lasts, it is as long as frames
  typically last, at most 1 / the stated rate, or until the end that FFmpeg reckons if that is earlier.
- The duration of a video is the end of its last frame. Clips (`sample_clips`) follow from these times alone, never from
  a mean rate or a number of frames.
- A stream without presentation times is counted. An AVI has decoding times only, dropped frames included: a frame is
  shown when the decoder gives it, less the delay of the first one. A raw stream has no times at all, and its frames
  follow one another at its stated rate.
- Where the clock jumps back, as in recordings that are joined, the later part follows the earlier one. A few packets
  whose times lie apart from those around them have no time, and their frames are left out. A picture that stands for
  hours is taken as it is; a single jump ahead by more than a day is none, and what follows follows at once. The last
  three are faults of the file: it is read, and told to be partial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_TICK = -(2**63)
"""Stands for a time that a packet does not have."""

USUAL_RATE = 25.0
"""Frames per second of a stream that states no rate that can be."""

HIGHEST_RATE = 240.0
"""Largest number of frames per second that is believed of a statement."""

STATED_END_SECONDS = 0.5
"""Longest time after the last packet at which the end that a header states is taken."""

MOST_DELAY = 32
"""Number of packets that no decoder keeps back."""

_SAME_SECONDS = 2e-6  # `start_time` is in whole microseconds
_BACK_SECONDS = 1.0
_MOST_STRAY = 8
_DELAY_SECONDS = 10.0
_TYPICAL_RATIO = 1.75
_MOST_TICKS = 2**60  # larger ones are garbage, and their sums would overflow
_DAY_SECONDS = 24 * 3600.0
_FAR_STEPS = 1000  # a jump is longer than the usual step by this factor
_LONGEST_STILL_SECONDS = 4 * 3600.0
_LONGEST_STILL_OF_STREAM_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class PacketTimes:
    """The times of a video's N packets as the container has them, in decoding order.

    Attributes:
        presentation: (N,) int64, ticks at which the frames are shown; `NO_TICK` where not known.
        decoding: (N,) int64, ticks at which the packets are decoded; `NO_TICK` where not known.
        is_shown: (N,) bool, False for a packet that is only decoded for others.
        tick_seconds: Length of a tick.
        start_seconds: Start of the container on the same clock.
        last_seconds: Duration of the packet that is shown last; 0 where not known.
        sound_end_seconds: End of the other streams, on the same clock; -inf without any.
        stated_seconds: Duration in the container's header; None where there is none.
        reckoned_seconds: Duration that FFmpeg reckons, with or without a header; None where it does not know.
        stated_rate: Frames per second that the stream states.
        is_presented: Whether the presentation times are the container's own, not FFmpeg's guess.
        delay: Number of packets that the decoder keeps back, where the presentation times are a guess.
        is_stream: Whether the format is made for sending, where clocks often break.
    """

    presentation: NDArray[np.int64]
    decoding: NDArray[np.int64]
    is_shown: NDArray[np.bool_]
    tick_seconds: float
    start_seconds: float
    last_seconds: float
    sound_end_seconds: float
    stated_seconds: float | None
    reckoned_seconds: float | None
    stated_rate: float
    is_presented: bool
    delay: int
    is_stream: bool


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When the frames of a video are shown.

    Attributes:
        ticks: (N,) int64, when each packet's frame is shown, jumps back mended; `NO_TICK` where not known.
        is_timed: False: the stream has no presentation times. A frame is then known by its number.
        frame_keys: (M,) int64, ascending: what each shown frame is known by, its tick or else its number.
        frame_times_seconds: (M,) float64, ascending, at least 0, from the start of the container.
        end_seconds: End of the last frame.
        states_end: Whether a packet or the container says how long the last frame lasts.
        frames_per_second: Mean rate, or the stated one where there is a single frame or no time.
        fault: Fault of the times, or "".
    """

    ticks: NDArray[np.int64]
    is_timed: bool
    frame_keys: NDArray[np.int64]
    frame_times_seconds: NDArray[np.float64]
    end_seconds: float
    states_end: bool
    frames_per_second: float
    fault: str


def read_clock(packets: PacketTimes) -> Clock:
    """Returns when the frames of packets are shown; one without any frame if no packet has one."""
    ticks, is_mended, fault = _mended(packets)
    timed = ticks[packets.is_shown & (ticks != NO_TICK)]
    is_timed = packets.is_presented and len(timed) > len(ticks) / 2
    if is_timed:
        keys = np.unique(timed)
        times = _since_start(keys, packets)
    else:
        keys, times = np.arange(len(ticks)), _counted(packets)
    stated_rate = packets.stated_rate if 1 <= packets.stated_rate <= HIGHEST_RATE else USUAL_RATE
    has_rate = is_timed and len(keys) > 1 and times[-1] > times[0]
    end_seconds, states_end = _end(packets, times, stated_rate, is_mended=is_mended)
    return Clock(
        ticks=ticks,
        is_timed=is_timed,
        frame_keys=keys,
        frame_times_seconds=times,
        end_seconds=end_seconds,
        states_end=states_end,
        frames_per_second=(len(keys) - 1) / float(times[-1] - times[0]) if has_rate else stated_rate,
        fault=fault or _jump(times, is_stream=packets.is_stream),
    )


def typical_seconds(times_seconds: NDArray[np.float64]) -> float:
    """Returns how long a frame typically lasts: the mean, without gaps and bursts, of frames near the median.

    Args:
        times_seconds: (N,) ascending.

    Returns:
        Seconds; 0 where no two frames differ in time.
    """
    lasts = np.diff(times_seconds)
    lasts = lasts[lasts > 0]
    if not len(lasts):
        return 0.0
    median = float(np.median(lasts))
    usual = lasts[(lasts <= median * _TYPICAL_RATIO) & (lasts >= median / _TYPICAL_RATIO)]
    return float(usual.mean()) if len(usual) else median


def _since_start(ticks: NDArray[np.int64], packets: PacketTimes) -> NDArray[np.float64]:
    """Returns the seconds (M,) from the start of the container of ticks (M,), ascending."""
    if not len(ticks):
        return np.empty(0)
    first_seconds = float(ticks[0]) * packets.tick_seconds
    since_first = (ticks.astype(np.float64) - float(ticks[0])) * packets.tick_seconds
    late_seconds = first_seconds - packets.start_seconds
    return np.maximum(since_first + (late_seconds if abs(late_seconds) > _SAME_SECONDS else 0.0), 0.0)


def _counted(packets: PacketTimes) -> NDArray[np.float64]:
    """Returns the times (N,) of frames that are known by their number."""
    count = len(packets.decoding)
    in_order = np.sort(packets.decoding)
    if count and in_order[0] != NO_TICK and (np.diff(in_order) > 0).all():
        given = _since_start(in_order, packets)
        delay, usual_seconds = min(packets.delay, count - 1), typical_seconds(given)
        kept_back = given[-1] + usual_seconds * np.arange(1, delay + 1)
        return np.maximum(np.concatenate([given[delay:], kept_back]) - delay * usual_seconds, 0.0)
    rate = packets.stated_rate if 1 <= packets.stated_rate <= HIGHEST_RATE else USUAL_RATE
    return np.arange(count) / rate


def _end(
    packets: PacketTimes, times: NDArray[np.float64], stated_rate: float, *, is_mended: bool
) -> tuple[float, bool]:
    """Returns the end of the last frame, and whether the file says it."""
    if not len(times):
        return 0.0, False
    last = float(times[-1])
    own_seconds = packets.last_seconds if 0 < packets.last_seconds <= _LONGEST_STILL_SECONDS else 0.0
    end = last + (own_seconds or min(typical_seconds(times) or np.inf, 1 / stated_rate))
    states_end = own_seconds > 0 or len(times) > 1
    shortest = last + 1 / HIGHEST_RATE
    if packets.reckoned_seconds is not None and not own_seconds and shortest <= packets.reckoned_seconds <= end:
        end, states_end = packets.reckoned_seconds, True
    sound_end = packets.sound_end_seconds - packets.start_seconds
    if not is_mended and sound_end > end:
        return sound_end, True
    if packets.stated_seconds is not None and end < packets.stated_seconds <= end + STATED_END_SECONDS:
        end = packets.stated_seconds
    return end, states_end


def _mended(packets: PacketTimes) -> tuple[NDArray[np.int64], bool, str]:
    """Mends times that jump and takes away those that lie apart.

    Returns:
        (N,) ticks, whether any part of the file was moved in time, and the fault that was mended, or "".
    """
    ticks, decoding = (
        np.where(np.abs(given) > _MOST_TICKS, NO_TICK, given) for given in (packets.presentation, packets.decoding)
    )
    num_stray = int(((ticks == NO_TICK) & (packets.presentation != NO_TICK)).sum())
    decoding = np.where(decoding == NO_TICK, ticks, decoding)
    known = np.flatnonzero(decoding != NO_TICK)
    shifts, is_stray, ahead_ticks = _shifts(decoding[known], packets.tick_seconds)
    decoding = decoding[known] + shifts
    shown = ticks[known]
    shown = np.where(is_stray | (shown == NO_TICK), NO_TICK, shown + shifts)
    is_stray |= (shown != NO_TICK) & _is_apart(shown, decoding, packets.tick_seconds)
    ticks[known] = np.where(is_stray, NO_TICK, shown)
    num_stray += int(is_stray.sum())
    fault = ""
    if num_stray:
        fault = f"has frames whose times make no sense ({num_stray} of {len(ticks)}); they are left out"
    elif ahead_ticks:
        fault = f"has a clock that jumps ahead by {ahead_ticks * packets.tick_seconds:.0f} s; the jump is left out"
    return ticks, bool(shifts.any()), fault


def _shifts(decoding: NDArray[np.int64], tick_seconds: float) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Finds the parts of a file between jumps of its clock.

    Args:
        decoding: (K,) int64, ticks in the order of the file.
        tick_seconds: Length of a tick.

    Returns:
        (K,) int64, ticks to add so that each part follows the one before it; (K,) bool, the few packets between two
        parts that follow one another without them; and the ticks of the first jump ahead that was left out, or 0.
    """
    steps = np.diff(decoding)
    shifts, is_stray, ahead = np.zeros(len(decoding), np.int64), np.zeros(len(decoding), bool), 0
    if not len(steps) or not tick_seconds > 0:
        return shifts, is_stray, ahead
    back, far = round(_BACK_SECONDS / tick_seconds), round(_DAY_SECONDS / tick_seconds)
    if steps.min() >= -back and steps.max() <= far:
        return shifts, is_stray, ahead
    usual = max(1, int(np.median(np.abs(steps))))
    far = max(far, _FAR_STEPS * usual)
    near = max(back, 3 * usual)
    starts = [0, *(np.flatnonzero(np.abs(steps) > near) + 1).tolist()]
    ends = [*starts[1:], len(decoding)]
    shift, reached = 0, int(decoding[0]) - usual
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        step = int(decoding[start]) + shift - reached
        is_short = number > 0 and end - start <= _MOST_STRAY and end < len(decoding)
        if is_short and 0 < int(decoding[end]) + shift - reached <= near < abs(step):
            is_stray[start:end] = True
            continue
        if step < -back or step > far:
            ahead = ahead or max(step, 0)
            shift += usual - step
        shifts[start:end] = shift
        reached = int(decoding[end - 1]) + shift
    return shifts, is_stray, ahead


def _is_apart(shown: NDArray[np.int64], decoding: NDArray[np.int64], tick_seconds: float) -> NDArray[np.bool_]:
    """Returns (K,) bool: the frame would be shown long before it is decoded, or after all that a decoder keeps back."""
    margin = _DELAY_SECONDS / tick_seconds if tick_seconds > 0 else 0.0
    if len(decoding) and np.abs(shown - decoding).max() <= margin:
        return np.zeros(len(decoding), bool)
    later = decoding[np.minimum(np.arange(len(decoding)) + MOST_DELAY, len(decoding) - 1)]
    if len(decoding) > 1:
        margin = max(margin, MOST_DELAY * float(np.median(np.abs(np.diff(decoding)))))
    as_float = shown.astype(np.float64)
    apart: NDArray[np.bool_] = (as_float > later + margin) | (as_float < decoding - margin)
    return apart


def _jump(times: NDArray[np.float64], *, is_stream: bool) -> str:
    """Returns the fault of times of frames (M,) between which hours go by, or ""."""
    gaps = np.diff(times, prepend=0.0)
    if not len(times) or gaps.max() <= (_LONGEST_STILL_OF_STREAM_SECONDS if is_stream else _LONGEST_STILL_SECONDS):
        return ""
    at = int(gaps.argmax())
    before = float(times[at - 1]) if at else 0.0
    return f"has a clock that jumps from {before:.1f} s to {float(times[at]):.1f} s"
