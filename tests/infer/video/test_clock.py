"""Times are those at which a player shows the frames: FFmpeg's own, on every container, and what mends broken ones."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hbi_infer.options import FrameSampling
from hbi_infer.video.clock import NO_TICK, PacketTimes, read_clock, typical_seconds
from hbi_infer.video.decoded_video import DecodedVideo
from hbi_infer.video.reader import decode, read_frames
from tests.builders.video_files import FORMATS, numbered_frame, read_number, write_tone, write_video

EVERY_FRAME = FrameSampling(image_size=64, frames_per_second=1000, max_frames=400, clip_seconds=1e9)
HALF = [number / 25 for number in range(25)]
TIMES = {
    "constant": [number / 25 for number in range(50)],
    "variable": [0.0, *np.cumsum([0.04] * 20 + [0.5] * 4 + [0.12] * 25).tolist()],
    "gap": HALF + [20 + seconds for seconds in HALF],
    "late": [5 + number / 25 for number in range(50)],
}
# Their muxers cannot leave frames out; the stream of h264 has no times at all.
CONSTANT_ONLY = {"mpg", "mpg-mpeg2", "ts-mpeg2", "h264"}
# FFmpeg's times of this one are guesses that do not even ascend.
GUESSED = {"avi-h264"}
B_FRAMES = {"mp4", "mov", "mkv", "ts", "3gp", "mp4-hevc", "mpg-mpeg2", "ts-mpeg2"}


def told(path: Path) -> dict[int, float]:
    """Decode all of a file; return frame number -> FFmpeg's time of it from the start of the container."""
    with av.open(str(path)) as container:
        origin_seconds = (container.start_time or 0) / av.time_base
        return {
            read_number(frame.to_ndarray(format="rgb24")): float(frame.time) - origin_seconds
            for frame in container.decode(video=0)
        }


def given(video: DecodedVideo) -> dict[int, float]:
    return {
        read_number(image): float(seconds)
        for clip in video.clips
        for image, seconds in zip(clip.frames[clip.mask], clip.timestamps_seconds[clip.mask], strict=True)
    }


def duration(video: DecodedVideo) -> float | None:
    assert video.info is not None
    return video.info.duration_seconds


@pytest.mark.parametrize("with_audio", [False, True])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in CONSTANT_ONLY | GUESSED])
def test_the_times_are_those_of_a_full_decode(tmp_path: Path, kind: str, times: str, with_audio: bool) -> None:
    if with_audio and FORMATS[kind].audio_codec is None:
        return
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, num_frames=50, timestamps_seconds=TIMES[times], with_audio=with_audio)
    video = decode(path, EVERY_FRAME)
    assert (video.status, video.reason) == ("ok", "")
    expected = told(path)
    assert len(expected) == 50
    assert given(video) == pytest.approx(expected, abs=1e-5)
    (clip,) = video.clips
    assert clip.start_seconds == pytest.approx(min(expected.values()), abs=1e-5)
    assert clip.end_seconds == duration(video)
    assert clip.end_seconds == pytest.approx(max(*expected.values(), 2 if with_audio else 0) + 0.04, abs=0.13)


@pytest.mark.parametrize("kind", [*sorted(CONSTANT_ONLY - {"h264"}), "flv"])
def test_the_times_of_a_constant_rate(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, num_frames=50, options={"bf": "2"} if kind in B_FRAMES else {})
    video = decode(path, EVERY_FRAME)
    assert given(video) == pytest.approx(told(path), abs=1e-5)
    assert duration(video) == pytest.approx(2)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("kind", sorted(B_FRAMES - CONSTANT_ONLY))
def test_frames_that_are_stored_in_another_order(tmp_path: Path, kind: str, times: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    options = {"x265-params": "log-level=none:bframes=2"} if kind == "mp4-hevc" else {"bf": "2"}
    write_video(path, kind, num_frames=50, timestamps_seconds=TIMES[times], options=options)
    assert given(decode(path, EVERY_FRAME)) == pytest.approx(told(path), abs=1e-5)


@pytest.mark.parametrize(("codec", "options"), [("mpeg4", {"bf": "2"}), ("libx264", {"bf": "3"}), ("mpeg4", {})])
def test_an_avi_counts_the_frames_that_were_dropped(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """Capture programs write an empty chunk for each frame that they dropped; presentation times an avi has none."""
    path = tmp_path / "video.avi"
    times = [(number if number < 20 else number + 100) / 25 for number in range(50)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 96
        stream.bit_rate = 4_000_000
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, 96, 96), format="rgb24")
            frame.pts, frame.time_base = round(seconds * 25), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = decode(path, EVERY_FRAME)
    assert given(video) == pytest.approx(dict(enumerate(times)))
    assert duration(video) == pytest.approx(6)


def test_a_picture_that_begins_after_the_sound(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    write_video(
        path, "mkv", num_frames=50, timestamps_seconds=[1.5 + number / 25 for number in range(50)], with_audio=True
    )
    video = decode(path, FrameSampling(image_size=64, clip_seconds=1))
    assert [(clip.start_seconds, clip.end_seconds) for clip in video.clips] == [(1.5, 2.5), (2.5, 3.5)]
    (second,) = video.clips[1].timestamps_seconds[video.clips[1].mask]
    (again,) = read_frames(path, np.array([second]), image_size=64)
    np.testing.assert_array_equal(again, video.clips[1].frames[0])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_one_picture_for_as_long_as_the_sound(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"still{suffix}"
    with av.open(str(path), "w", format={".ts": "mpegts"}.get(suffix)) as container:
        sound = container.add_stream("aac", rate=44_100)
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 96
        write_tone(container, sound, seconds=30)
        frame = av.VideoFrame.from_ndarray(numbered_frame(3, 96, 96), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = decode(path, FrameSampling(image_size=64))
    (clip,) = video.clips
    assert (video.status, video.reason) == ("ok", "")
    assert clip.mask.sum() == 1
    assert clip.end_seconds == duration(video) == pytest.approx(30, abs=0.2)


@pytest.mark.parametrize("kind", ["ts", "flv", "wmv", "mkv", "mp4"])
@pytest.mark.parametrize("seconds", [[0.0, 60.0], [0.0], [0.0, 5.0, 70.0, 75.0]])
def test_the_last_slide(tmp_path: Path, kind: str, seconds: list[float]) -> None:
    path = tmp_path / f"slides{FORMATS[kind].suffix}"
    write_video(path, kind, num_frames=len(seconds), timestamps_seconds=seconds)
    video = decode(path, FrameSampling(image_size=64))
    # A transport stream says nothing of a single picture, and FFmpeg takes the four for one a second.
    expected = {("ts", 1): None, ("ts", 4): 76.0}.get((kind, len(seconds)), seconds[-1] + 0.04)
    assert (video.status, duration(video)) == ("ok", expected and pytest.approx(expected, abs=0.05))


def test_a_picture_that_stands_is_in_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "screen.mkv"
    write_video(path, "mkv", num_frames=50, timestamps_seconds=HALF + [60 + seconds for seconds in HALF])
    clips = decode(path, FrameSampling(image_size=64)).clips
    assert [(clip.start_seconds, clip.end_seconds) for clip in clips] == [(0, 60), (60, 61)]
    assert clips[0].timestamps_seconds[clips[0].mask].tolist() == [0, 0.96]


def test_a_transport_stream_whose_clock_starts_again_from_zero_on_the_way(tmp_path: Path) -> None:
    """Its clock has 33 bits, which last for 26.5 hours."""
    path = tmp_path / "wrapped.ts"
    write_video(path, "ts", num_frames=200, timestamps_seconds=[95440 + number / 25 for number in range(200)])
    video = decode(path, EVERY_FRAME)
    assert (video.status, video.reason) == ("ok", "")
    assert given(video) == pytest.approx({number: number / 25 for number in range(200)}, abs=1e-5)


def test_a_clock_that_jumps_by_hours_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jump.ts"
    write_video(path, "ts", num_frames=50, timestamps_seconds=HALF + [10_800 + seconds for seconds in HALF])
    video = decode(path, FrameSampling(image_size=64))
    assert (video.status, video.problem) == ("partial", "damaged")
    assert video.reason == "has a clock that jumps from 1.0 s to 10800.0 s"
    assert duration(video) == pytest.approx(10_801)
    assert [clip.start_seconds for clip in video.clips] == pytest.approx([0, 10_800])


STEADY = np.arange(100, dtype=np.int64) * 40


def packets(presentation: np.ndarray, decoding: np.ndarray | None = None, **others: object) -> PacketTimes:
    """Packets of a stream in milliseconds, all shown, without sound or header."""
    times = PacketTimes(
        presentation=presentation,
        decoding=presentation if decoding is None else decoding,
        is_shown=np.ones(len(presentation), bool),
        tick_seconds=0.001,
        start_seconds=0.0,
        last_seconds=0.0,
        sound_end_seconds=-np.inf,
        stated_seconds=None,
        reckoned_seconds=None,
        stated_rate=25.0,
        is_presented=True,
        delay=0,
        is_stream=False,
    )
    return replace(times, **others)  # type: ignore[arg-type]


def test_the_last_frame_lasts_for_its_own_duration_or_until_the_container_ends() -> None:
    def ends(**others: object) -> float:
        return read_clock(packets(STEADY, **others)).end_seconds

    assert ends() == pytest.approx(4.0)
    assert ends(last_seconds=5.0) == pytest.approx(8.96)
    assert ends(sound_end_seconds=60.0) == 60.0
    assert ends(sound_end_seconds=60.0, start_seconds=-1.0) == 61.0
    assert ends(sound_end_seconds=1.0) == pytest.approx(4.0)
    assert ends(stated_seconds=4.3) == 4.3
    assert ends(stated_seconds=2_202_549.0) == pytest.approx(4.0)
    assert ends(last_seconds=2_202_549.0) == pytest.approx(4.0)
    assert ends(reckoned_seconds=3.97) == 3.97
    assert ends(reckoned_seconds=3.0) == pytest.approx(4.0)
    assert ends(reckoned_seconds=30.0) == pytest.approx(4.0)
    assert not read_clock(packets(STEADY[:1])).states_end
    assert read_clock(packets(STEADY[:1], last_seconds=60.0)).states_end


def test_recordings_that_are_joined_follow_one_another() -> None:
    clock = read_clock(packets(np.concatenate([STEADY + 50_000, STEADY + 7_000, STEADY + 7_000]), start_seconds=50.0))
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(300) / 25)
    assert (clock.is_timed, clock.fault, clock.end_seconds) == (True, "", pytest.approx(12))


def test_times_of_joined_recordings_with_frames_in_another_order() -> None:
    """Each packet is shown two frames after it is decoded, but every third right then."""
    decoding = np.concatenate([STEADY, STEADY])
    order = np.arange(99).reshape(-1, 3)[:, [2, 0, 1]].ravel()  # P B B
    shown = np.concatenate([STEADY[:99][order] + 80, STEADY[:99][order] + 80])
    decoding = np.concatenate([STEADY[:99], STEADY[:99]])
    clock = read_clock(packets(shown, decoding, start_seconds=0.08))
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(198) / 25)


@pytest.mark.parametrize("stray", [[2**40], [2**62], [-(2**40)], [2**40, 2**40 + 40, 2**40 + 80]])
def test_a_few_packets_whose_times_lie_apart_have_none(stray: list[int]) -> None:
    times = STEADY.copy()
    times[30 : 30 + len(stray)] = stray
    clock = read_clock(packets(times))
    np.testing.assert_allclose(clock.frame_times_seconds, np.delete(STEADY / 1000, np.arange(30, 30 + len(stray))))
    assert clock.fault == f"has frames whose times make no sense ({len(stray)} of 100); they are left out"
    assert (clock.ticks[30 : 30 + len(stray)] == NO_TICK).all()
    assert clock.end_seconds == pytest.approx(4.0)


def test_a_single_jump_ahead_by_days_is_left_out() -> None:
    """Times before 0 in an flv are numbers near 2^31 milliseconds."""
    clock = read_clock(packets(np.concatenate([STEADY, STEADY + 2**31])))
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(200) / 25)
    assert clock.fault == "has a clock that jumps ahead by 2147480 s; the jump is left out"


def test_pictures_that_are_all_days_apart_stay_so() -> None:
    clock = read_clock(packets(np.arange(10, dtype=np.int64) * 10**9))
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(10) * 1e6)
    assert clock.fault == "has a clock that jumps from 0.0 s to 1000000.0 s"


def test_a_time_long_after_it_is_decoded_is_none() -> None:
    shown = STEADY.copy()
    shown[50] += 3_600_000
    clock = read_clock(packets(shown, STEADY))
    assert len(clock.frame_keys) == 99
    assert clock.fault == "has frames whose times make no sense (1 of 100); they are left out"


def test_slow_pictures_in_another_order_keep_their_times() -> None:
    """A picture in ten seconds, decoded two pictures before it is shown."""
    decoding = np.arange(20, dtype=np.int64) * 10_000
    clock = read_clock(packets(decoding + 20_000, decoding, start_seconds=20.0))
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(20) * 10.0)
    assert clock.fault == ""


def test_frames_before_the_start_are_shown_at_the_start() -> None:
    clock = read_clock(packets(STEADY, start_seconds=0.1))
    assert clock.frame_times_seconds[:4].tolist() == pytest.approx([0, 0, 0, 0.02])


def test_frames_without_times_follow_at_the_stated_rate() -> None:
    nothing = np.full(10, NO_TICK)
    clock = read_clock(packets(nothing, stated_rate=5.0))
    assert (clock.is_timed, clock.frames_per_second) == (False, 5.0)
    np.testing.assert_allclose(clock.frame_times_seconds, np.arange(10) / 5)
    assert clock.end_seconds == pytest.approx(2)
    unknown = read_clock(packets(nothing, stated_rate=1200.0))
    assert unknown.frames_per_second == 25.0
    assert len(read_clock(packets(nothing[:0])).frame_keys) == 0


def test_how_long_a_frame_typically_lasts() -> None:
    assert typical_seconds(np.array([0.0])) == 0.0
    assert typical_seconds(np.array([1.0, 1.0])) == 0.0
    assert typical_seconds(np.array([0, 0.033, 0.067, 0.1, 60.0])) == pytest.approx(0.1 / 3)
