"""Every container and codec, and the timing cases that are hard, on real files."""

from __future__ import annotations

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import Clip, DecodedVideo
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.reader import decode, probe, read_picture
from tests.builders.video_files import FORMATS, Unseekable, read_number, write_video

ONE_A_SECOND = FrameSampling(image_size=64)
EACH_SECOND = [0, 25, 50, 75]
CODECS = {
    "mp4": "h264",
    "mov": "mpeg4",
    "mkv": "h264",
    "webm": "vp9",
    "avi": "mpeg4",
    "mpg": "mpeg1video",
    "wmv": "wmv2",
    "flv": "flv1",
    "ts": "h264",
    "3gp": "mpeg4",
    "gif": "gif",
    "mp4-hevc": "hevc",
    "mp4-av1": "av1",
    "webm-vp8": "vp8",
    "avi-mjpeg": "mjpeg",
    "mpg-mpeg2": "mpeg2video",
    "mkv-ffv1": "ffv1",
    "avi-h264": "h264",
    "ts-mpeg2": "mpeg2video",
    "h264": "h264",
}


def numbers(clip: Clip) -> list[int]:
    return [read_number(frame) for frame in clip.frames[clip.mask]]


def seconds(clip: Clip) -> list[float]:
    return [round(float(timestamp), 6) for timestamp in clip.timestamps_seconds[clip.mask]]


def decoded(path: Path, sampling: FrameSampling = ONE_A_SECOND) -> DecodedVideo:
    video = decode(path, sampling)
    assert (video.status, video.reason) == ("ok", "")
    assert video.path == path
    return video


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind)
    video = decoded(path)
    (clip,) = video.clips
    assert numbers(clip) == EACH_SECOND
    assert seconds(clip) == [0, 1, 2, 3]
    assert (clip.start_seconds, clip.end_seconds) == pytest.approx((0, 4))
    assert clip.frames.shape == (12, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.mask.tolist() == [True] * 4 + [False] * 8
    assert not clip.frames[4:].any()
    assert np.isnan(clip.timestamps_seconds[4:]).all()
    info = video.info
    assert info is not None
    assert (info.width, info.height, info.rotation_degrees) == (96, 96, 0)
    assert info.duration_seconds == pytest.approx(4)
    assert info.frames_per_second == pytest.approx(25)
    assert info.codec == CODECS[kind]
    assert probe(path) == info


@pytest.mark.parametrize("kind", [kind for kind, how in FORMATS.items() if how.audio_codec and kind != "avi"])
def test_sound_does_not_matter(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, with_audio=True)
    assert numbers(decoded(path).clips[0]) == EACH_SECOND


@pytest.mark.parametrize("kind", ["mkv", "webm", "ts", "mpg", "flv", "avi", "gif", "wmv"])
def test_a_stream_without_duration_or_index(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"live{FORMATS[kind].suffix}"
    with Unseekable(path) as target:
        write_video(target, kind)
    video = decoded(path)
    assert numbers(video.clips[0]) == EACH_SECOND
    assert video.info is not None
    assert video.info.duration_seconds == pytest.approx(4)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "ts", "flv", "wmv", "gif"])
def test_variable_frame_rate(tmp_path: Path, kind: str) -> None:
    """Two seconds at 25 a second, then four frames that last half a second each, then a burst at 100 a second."""
    gaps = [0.04] * 50 + [0.5] * 4 + [0.01] * 46
    times = [0.0, *np.cumsum(gaps[:-1])]
    path = tmp_path / f"variable{FORMATS[kind].suffix}"
    write_video(path, kind, timestamps_seconds=times)
    video = decoded(path, FrameSampling(image_size=64, frames_per_second=2))
    (clip,) = video.clips
    assert len(numbers(clip)) >= 8
    for number, timestamp in zip(numbers(clip), seconds(clip), strict=True):
        assert timestamp == pytest.approx(times[number], abs=0.006)
    assert {50, 51, 52, 53} <= set(numbers(clip))


@pytest.mark.parametrize("kind", ["mov", "webm", "avi", "flv", "gif", "mpg", "webm-vp8", "avi-mjpeg", "mkv-ffv1"])
def test_odd_sizes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"odd{FORMATS[kind].suffix}"
    write_video(path, kind, width=61, height=47)
    video = decoded(path)
    assert numbers(video.clips[0]) == EACH_SECOND
    assert video.info is not None
    assert (video.info.width, video.info.height) == (61, 47)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24), Fraction(5), Fraction(1), Fraction(1, 4)])
def test_rates(tmp_path: Path, rate: Fraction) -> None:
    path = tmp_path / "video.mkv"
    write_video(path, "mkv", num_frames=40, frames_per_second=rate)
    video = decoded(path, FrameSampling(image_size=64, clip_seconds=1e6, max_frames=40))
    stride = max(1, round(rate))
    assert numbers(video.clips[0]) == list(range(0, 40, stride))
    assert seconds(video.clips[0]) == pytest.approx([number / rate for number in range(0, 40, stride)], abs=0.001)
    assert video.info is not None
    assert video.info.frames_per_second == pytest.approx(float(rate), rel=0.001)


# Groups that lean on the one before (open), B-frames as references, hidden reference frames, a single keyframe.
STRUCTURES = {
    "h264-open": ("mkv", {"x264-params": "open-gop=1:bframes=4:b-pyramid=normal"}, 12),
    "h264-one-keyframe": ("mp4", {"x264-params": "bframes=3"}, 1000),
    "hevc-open": ("mp4-hevc", {"x265-params": "log-level=none:open-gop=1:bframes=4"}, 12),
    "mpeg2-open": ("mpg-mpeg2", {"bf": "2"}, 12),
    "mpeg2-ts": ("ts-mpeg2", {"bf": "2"}, 15),
    "mpeg4-b": ("mov", {"bf": "2"}, 12),
    "avi-mpeg4-b": ("avi", {"bf": "2"}, 12),
    "vp8-alt-ref": ("webm-vp8", {"auto-alt-ref": "1", "lag-in-frames": "16"}, 30),
    "vp9-alt-ref": ("webm", {"auto-alt-ref": "1", "lag-in-frames": "16"}, 30),
    "av1": ("mp4-av1", {}, 16),
    "intra": ("avi-mjpeg", {}, 1),
    "ts": ("ts", {"x264-params": "open-gop=1:bframes=3"}, 12),
}


@pytest.fixture(scope="module", params=STRUCTURES)
def structured_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, options, keyframe_interval = STRUCTURES[request.param]
    path = tmp_path_factory.mktemp("structures") / f"{request.param}{FORMATS[kind].suffix}"
    write_video(path, kind, num_frames=300, options=options, keyframe_interval=keyframe_interval, moving=True)
    return path


@pytest.mark.parametrize("stride", [1, 11, 23, 37, 100])
def test_jumping_over_groups_gives_the_right_frames(structured_video: Path, stride: int) -> None:
    """Few, some or all frames wanted: each is the one that belongs to its time, whatever was not decoded."""
    sampling = FrameSampling(image_size=64, frames_per_second=25 / stride, max_frames=300, clip_seconds=1e6)
    (clip,) = decoded(structured_video, sampling).clips
    assert numbers(clip) == list(range(0, 300, stride))
    assert seconds(clip) == pytest.approx([number / 25 for number in range(0, 300, stride)], abs=0.001)


def test_a_long_video_is_cut_into_clips(tmp_path: Path) -> None:
    path = tmp_path / "ten_minutes.mp4"
    write_video(path, num_frames=1200, frames_per_second=2, width=64, height=64)
    clips = decoded(path).clips
    assert len(clips) == 50
    assert all(clip.mask.all() for clip in clips)
    assert [clip.start_seconds for clip in clips] == [12 * number for number in range(50)]
    assert [number for clip in clips for number in numbers(clip)] == list(range(0, 1200, 2))
    assert all(clip.end_seconds == following.start_seconds for clip, following in pairwise(clips))


def test_no_more_than_fits_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, num_frames=200, frames_per_second=1, width=64, height=64)
    monkeypatch.setattr("hbi_infer.video.reader._MAX_BYTES", 30 * 64 * 64 * 3)
    video = decode(path, ONE_A_SECOND)
    assert (video.status, video.reason) == ("partial", "is too long: only the first 36 s of it were kept")
    assert len(video.clips) == 3


@pytest.mark.parametrize(
    "name",
    [
        "with some blanks.mp4",
        "-i.mp4",
        "кино 電影 🎬.mp4",
        "line\nbreak.mp4",
        "http:x.mp4",
        "concat:x|y.mp4",
        "%03d.mp4",
        "quote'\".mp4",
        os.fsdecode(b"not-utf8-\xff.mp4"),
    ],
)
def test_file_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", num_frames=1)
    (tmp_path / "plain.mp4").rename(name)
    assert decoded(Path(name)).clips
    assert decoded(tmp_path / name).clips
    assert find_videos(Path()) == [Path(name)]


def test_a_picture_of_a_frame_is_whole_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, num_frames=50, width=160, height=96, rotation_degrees=90)
    picture = read_picture(path, 1.0, longest_side=80)
    assert picture.shape == (80, 48, 3)
    (clip,) = decode(path, FrameSampling(frames_per_second=1, image_size=48)).clips
    np.testing.assert_allclose(picture[16:64].mean(axis=2), clip.frames[1].mean(axis=2), atol=12)
    with pytest.raises(VideoError, match="is not the video that it was: its frames have other times"):
        read_picture(path, 1.01, longest_side=80)
