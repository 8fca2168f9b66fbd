"""Which frames are chosen: the published readers' golden choices, and the same by timestamps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.sampling import (
    ClipFrames,
    Stretch,
    sample_clips,
    sample_positions,
    sample_positions_by_second,
    sample_stretch,
    spread,
)
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "frames.json").read_text())
WHOLE = 1e6  # seconds: no video here is cut


def clips_of(times: list[float] | np.ndarray, frame_seconds: float, **options: Any) -> list[ClipFrames]:
    sampling = replace(FrameSampling(), **options)
    seconds = np.asarray(times, np.float64)
    return list(sample_clips(seconds, sampling, end_seconds=float(seconds[-1]) + frame_seconds))


@pytest.mark.parametrize("case", GOLDEN["decord"])
def test_positions_are_those_of_the_published_msrvtt_reader(case: dict[str, Any]) -> None:
    positions = sample_positions(
        case["frames"],
        case["fps"],
        frames_per_second=case["framerate"],
        max_frames=case["max_frames"],
        start_seconds=case.get("start"),
        end_seconds=case.get("end"),
    )
    assert positions.tolist() == case["positions"]
    assert len(positions) == sum(case["mask"])


@pytest.mark.parametrize("case", GOLDEN["opencv"])
def test_positions_are_those_of_the_published_activitynet_reader(case: dict[str, Any]) -> None:
    positions = sample_positions_by_second(
        case["frames"],
        case["fps"],
        frames_per_second=case["framerate"],
        start_seconds=case["start"],
        end_seconds=case["end"],
    )
    assert positions.tolist() == case["positions"]


@pytest.mark.parametrize("case", [case for case in GOLDEN["decord"] if "start" not in case])
def test_timestamps_choose_the_published_frames(case: dict[str, Any]) -> None:
    times = np.arange(case["frames"]) / case["fps"]
    (clip,) = clips_of(
        times,
        1 / case["fps"],
        frames_per_second=case["framerate"],
        max_frames=case["max_frames"],
        clip_seconds=WHOLE,
    )
    assert clip.positions.tolist() == case["positions"]


@given(
    num_frames=st.integers(1, 3000),
    video_rate=st.floats(0.6, 120),
    wanted_rate=st.floats(0.3, 8),
    max_frames=st.integers(1, 40),
    tick_seconds=st.sampled_from([0.0, 0.001, 0.01, 1 / 90_000]),
    start=st.floats(0, 100),
)
def test_a_constant_rate_gives_the_same_by_timestamps_whatever_the_container_rounds(
    num_frames: int, video_rate: float, wanted_rate: float, max_frames: int, tick_seconds: float, start: float
) -> None:
    if 2 * video_rate < 1.01 * wanted_rate or tick_seconds * video_rate > 0.5:
        return
    times = start + np.arange(num_frames) / video_rate
    if tick_seconds:
        times = np.round(times / tick_seconds) * tick_seconds
    times -= times[0]
    frame_seconds = times[-1] / (num_frames - 1) if num_frames > 1 else 1 / video_rate
    if round(1 / frame_seconds / wanted_rate) != round(video_rate / wanted_rate):
        return  # the rounded times say another rate, on the border between two strides
    (clip,) = clips_of(times, frame_seconds, frames_per_second=wanted_rate, max_frames=max_frames, clip_seconds=WHOLE)
    counted = sample_positions(num_frames, video_rate, frames_per_second=wanted_rate, max_frames=max_frames)
    assert clip.positions.tolist() == counted.tolist()


def test_twelve_frames_a_clip_at_one_and_at_three_per_second() -> None:
    (published,) = clips_of(np.arange(300) / 25, 1 / 25)
    assert published.positions.tolist() == list(range(0, 300, 25))
    (dense,) = clips_of(np.arange(96) / 24, 1 / 24, frames_per_second=3, clip_seconds=4)
    assert dense.positions.tolist() == list(range(0, 96, 8))


def test_long_videos_are_cut_and_a_sliver_joins_the_last_clip() -> None:
    clips = clips_of(np.arange(25 * 30) / 25, 1 / 25)
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0, 12), (12, 24), (24, 30)]
    assert [clip.positions[0] for clip in clips] == [0, 300, 600]
    assert [len(clip.positions) for clip in clips] == [12, 12, 6]
    (joined,) = clips_of(np.arange(301) / 25, 1 / 25)
    assert joined.end_seconds == pytest.approx(12.04)
    assert joined.positions[-1] == 300
    assert len(clips_of(np.arange(313) / 25, 1 / 25)) == 2


def test_a_frame_that_stays_on_the_screen_is_taken_once_and_is_in_the_clip_in_which_it_began() -> None:
    times = [0, 0.5, 1, 1.5, 2, 7.9, 8, 30, 30.5]
    clips = clips_of(times, 0.5)
    assert [clip.positions.tolist() for clip in clips] == [[0, 2, 4, 6], [7]]
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0, 30), (30, 31)]


def test_the_interval_is_that_of_the_frames_of_a_clip_not_of_the_file() -> None:
    """Twelve seconds at 30 frames per second, then a picture that stands for eleven minutes, then 5 per second."""
    times = np.concatenate([np.arange(360) / 30, [692.0], 696 + np.arange(60) / 5])
    first, still, slow = clips_of(times, 0.2)
    # The last one stands until 692 s, so it is among the twelve.
    assert first.positions.tolist() == [*range(0, 330, 30), 359]
    assert (still.positions.tolist(), still.start_seconds, still.end_seconds) == ([360], 692.0, 696.0)
    assert slow.positions.tolist() == list(range(361, 421, 5))


def test_clips_are_counted_from_the_first_frame() -> None:
    """A picture that begins late, after sound, gives the same clips at later times."""
    late = clips_of(29.9 + np.arange(25 * 30) / 25, 1 / 25)
    assert [clip.start_seconds for clip in late] == pytest.approx([29.9, 41.9, 53.9])
    assert [clip.positions.tolist() for clip in late] == [
        clip.positions.tolist() for clip in clips_of(np.arange(25 * 30) / 25, 1 / 25)
    ]


def test_a_short_frame_after_a_still_is_a_clip_of_its_own() -> None:
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips_of([0, 60], 0.04)] == [(0, 60), (60, 60.04)]


def test_a_slow_video_is_sampled_at_the_wanted_rate() -> None:
    """A slide show of mostly one picture in ten seconds, with three quick ones."""
    (clip,) = clips_of([0, 10, 20, 21, 22, 23, 33], 6, clip_seconds=WHOLE)
    assert clip.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]


@given(
    gaps=st.lists(st.floats(0.0001, 40), min_size=0, max_size=60),
    rate=st.floats(0.1, 10),
    max_frames=st.integers(1, 20),
    clip_seconds=st.floats(0.5, 60),
)
def test_clips_of_any_times_are_sound(gaps: list[float], rate: float, max_frames: int, clip_seconds: float) -> None:
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    frame_seconds = times[-1] / len(gaps) if gaps else 0.04
    clips = clips_of(times, frame_seconds, frames_per_second=rate, max_frames=max_frames, clip_seconds=clip_seconds)
    chosen = np.concatenate([clip.positions for clip in clips])
    assert (np.diff(chosen) > 0).all()
    assert all(1 <= len(clip.positions) <= max_frames for clip in clips)
    assert all(clip.start_seconds < clip.end_seconds for clip in clips)
    assert all(clip.start_seconds <= times[clip.positions[0]] <= clip.start_seconds + 0.02 for clip in clips)
    assert [clip.end_seconds for clip in clips[:-1]] == [clip.start_seconds for clip in clips[1:]]
    assert clips[-1].end_seconds == times[-1] + frame_seconds
    assert len(clips) <= len(times)


def test_absurd_times_give_no_more_clips_than_frames() -> None:
    clips = clips_of([0, 1e9, 9e17], 3e17)
    assert len(clips) == 3


@given(count=st.integers(0, 500), most=st.integers(1, 50))
def test_spread_keeps_both_ends(count: int, most: int) -> None:
    kept = spread(count, most)
    assert len(kept) == min(count, most)
    assert (np.diff(kept) > 0).all()
    if count and most > 1:
        assert (kept[0], kept[-1]) == (0, count - 1)


def test_the_reader_by_seconds_says_what_it_cannot_count() -> None:
    with pytest.raises(InputError, match=r"0\.8 frames per second.*timestamps instead"):
        sample_positions_by_second(50, 0.8, frames_per_second=1)


def test_the_reader_by_seconds_thins_to_the_most_frames() -> None:
    positions = sample_positions_by_second(900, 30.0, frames_per_second=1, max_frames=4)
    assert positions.tolist() == [0, 270, 570, 870]


@pytest.mark.parametrize(
    ("stretch", "positions", "span"),
    [
        (Stretch(), [0, 25, 50, 75], (0.0, 4.0)),
        (Stretch(1.0, 3.0), [25, 50], (1.0, 3.0)),
        (Stretch(1.01, 2.03), [25, 50], (1.01, 2.03)),
        (Stretch(1.0, 1.001), [25], (1.0, 1.001)),
        (Stretch(2.49), [62, 87], (2.49, 4.0)),
        (Stretch(0.0, 100.0), [0, 25, 50, 75], (0.0, 4.0)),
    ],
)
def test_a_stretch_begins_with_what_is_on_the_screen(
    stretch: Stretch, positions: list[int], span: tuple[float, float]
) -> None:
    clip = sample_stretch(np.arange(100) / 25, FrameSampling(), stretch, end_seconds=4.0)
    assert (clip.positions.tolist(), (clip.start_seconds, clip.end_seconds)) == (positions, span)


@pytest.mark.parametrize(
    ("stretch", "span"), [(Stretch(4.0), "4 s"), (Stretch(7, 9), "7 s to 9 s"), (Stretch(0, 1), "")]
)
def test_a_stretch_without_a_picture_is_told(stretch: Stretch, span: str) -> None:
    with pytest.raises(VideoError, match=f"has no frame from {span}.*: it lasts from 1 to 4 s"):
        sample_stretch(1 + np.arange(75) / 25, FrameSampling(), stretch, end_seconds=4.0)


@given(st.lists(st.floats(0.001, 50), min_size=1, max_size=30), st.floats(0, 400), st.floats(0.001, 400))
def test_a_stretch_of_any_times_is_sound(gaps: list[float], start: float, seconds: float) -> None:
    times = np.cumsum(gaps) - gaps[0]
    video_end, end = float(times[-1]) + gaps[0], start + seconds
    if start >= video_end:
        return
    clip = sample_stretch(times, FrameSampling(max_frames=4), Stretch(start, end), end_seconds=video_end)
    assert 1 <= len(clip.positions) <= 4
    assert (np.diff(clip.positions) > 0).all()
    assert times[clip.positions[-1]] < end
    shown_until = np.append(times[1:], video_end)[clip.positions]
    assert (shown_until > start - 0.02).all()
    assert start <= clip.start_seconds < clip.end_seconds == min(end, video_end)
