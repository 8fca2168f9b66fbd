"""Moments cut out of videos: the right frames with their sound, copied or encoded; and what stands in the way."""

from __future__ import annotations

import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video import cutting
from hbi_infer.video.cutting import SavedClip, save_clip
from hbi_infer.video.decoded_video import DecodedVideo
from hbi_infer.video.reader import decode
from hbi_infer.video.sandbox import can_confine
from tests.builders.video_files import FORMATS, read_number, write_video

EVERY_FRAME = FrameSampling(frames_per_second=1000, max_frames=400, image_size=64, clip_seconds=1000)
FRAME = 1 / 25


def numbers(video: DecodedVideo) -> list[int]:
    (clip,) = video.clips
    return [read_number(image) for image in clip.frames[clip.mask]]


def numbers_between(video: Path, start_seconds: float, end_seconds: float) -> list[int]:
    """The numbers of a video's frames whose time lies in a stretch."""
    decoded = decode(video, EVERY_FRAME)
    (clip,) = decoded.clips
    inside = (clip.timestamps_seconds >= start_seconds - 1e-3) & (clip.timestamps_seconds < end_seconds - 1e-3)
    return [number for number, is_inside in zip(numbers(decoded), inside[clip.mask], strict=True) if is_inside]


def sound_span(video: Path) -> tuple[float, float]:
    """The times of the first and the last packet of sound."""
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size and packet.pts is not None]
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.time_base]
    return times[0], times[-1]


def cut(tmp_path: Path, start: float, end: float, kind: str = "mp4", **how: Any) -> tuple[Path, SavedClip]:
    video = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(video, kind, num_frames=100, **how)
    return video, save_clip(video, start, end, tmp_path / "moment")


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "avi", "mpg", "wmv", "ts", "gif", "mkv-ffv1", "h264"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.32, 2.0)])
def test_a_moment_has_the_frames_and_the_sound_of_its_time(tmp_path: Path, kind: str, start: float, end: float) -> None:
    has_sound = FORMATS[kind].audio_codec is not None
    video, saved = cut(tmp_path, start, end, kind, with_audio=has_sound, moving=kind != "gif")
    wanted = numbers_between(video, start, end)
    found = decode(saved.path, EVERY_FRAME)
    assert found.status == "ok"
    assert abs(numbers(found)[0] - wanted[0]) <= 1, "the first picture lies within a frame of the start"
    assert wanted[-1] <= numbers(found)[-1] <= wanted[-1] + 3
    assert sorted(numbers(found)) == numbers(found)
    if has_sound:
        first, last = sound_span(saved.path)
        assert first < 0.05
        assert last == pytest.approx(end - start, abs=0.1)


def test_packets_are_copied_where_a_keyframe_is_near(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    write_video(video, num_frames=100, keyframe_interval=10, options={"sc_threshold": "0"})
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        data = {bytes(packet) for packet in packets}
        keys = sorted(float(packet.pts * packet.time_base) for packet in packets if packet.is_keyframe)  # type: ignore[operator]
    assert len(keys) > 5
    for number, shift in enumerate((0, -FRAME, FRAME)):
        saved = save_clip(video, keys[2] + shift, keys[2] + 1, tmp_path / f"copied{number}")
        assert saved == SavedClip(tmp_path / f"copied{number}.mp4", is_copy=True)
        assert numbers(decode(saved.path, EVERY_FRAME))[0] == round(keys[2] / FRAME)
        with av.open(str(saved.path)) as container:
            assert {bytes(packet) for packet in container.demux(video=0) if packet.size} <= data
    saved = save_clip(video, keys[2] + 3 * FRAME, keys[2] + 1, tmp_path / "encoded")
    assert not saved.is_copy
    assert numbers(decode(saved.path, EVERY_FRAME))[0] == round(keys[2] / FRAME) + 3


@pytest.mark.parametrize("start", [0.0, 1.32], ids=["copied", "encoded"])
@pytest.mark.parametrize(
    "how",
    [
        {"rotation_degrees": 90, "width": 128, "height": 96},
        {"rotation_degrees": 270, "mirrored": True},
        {"mirrored": True},
        {"pixel_aspect": Fraction(4, 3)},
        {"kind": "mkv-ffv1", "width": 97, "height": 75},
    ],
    ids=["turned", "turned and mirrored", "mirrored", "wide pixels", "odd sides"],
)
def test_a_moment_is_shown_as_its_video_is(tmp_path: Path, start: float, how: dict[str, Any]) -> None:
    texture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    height, width = how.get("height", 96), how.get("width", 96)
    picture = np.kron(texture, np.ones((13, 17, 1), np.uint8))[:height, :width]
    video, saved = cut(tmp_path, start, start + 1, picture=picture, **how)
    before, after = decode(video, EVERY_FRAME), decode(saved.path, EVERY_FRAME)
    assert before.info is not None
    assert after.info is not None
    assert after.info.rotation_degrees == before.info.rotation_degrees
    assert abs(after.info.width - before.info.width) <= 1
    assert abs(after.info.height - before.info.height) <= 1
    difference = np.abs(before.clips[0].frames[0].astype(int) - after.clips[0].frames[0])
    assert difference.mean() < 10


def test_frames_keep_their_times_where_the_rate_varies(tmp_path: Path) -> None:
    seconds = [number * 0.1 if number < 50 else 5 + (number - 50) * 0.02 for number in range(100)]
    _, saved = cut(tmp_path, 4.8, 5.1, timestamps_seconds=seconds, keyframe_interval=100)
    (clip,) = decode(saved.path, EVERY_FRAME).clips
    np.testing.assert_allclose(clip.timestamps_seconds[clip.mask], [0, 0.1, 0.2, 0.22, 0.24, 0.26, 0.28], atol=2e-3)


def test_a_single_frame_is_a_moment(tmp_path: Path) -> None:
    _, saved = cut(tmp_path, 2.0, 2.0)
    assert numbers(decode(saved.path, EVERY_FRAME)) == [50]


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", num_frames=10)
    for suffix in (".mp4", ".mkv"):
        existing = tmp_path / f"moment{suffix}"
        existing.write_text("mine")
        with pytest.raises(
            InputError, match=f"moment{suffix} exists already and is kept: move it, or give another folder"
        ):
            save_clip(tmp_path / "video.mp4", 0, 1, tmp_path / "moment")
        assert existing.read_text() == "mine"
        existing.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="taken exists already and is kept"):
        cutting._put(tmp_path / "new", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("start", [0.0, 1.32], ids=["copied", "encoded"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, start: float) -> None:
    write_video(tmp_path / "video.mp4", num_frames=100, moving=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*\(File too large\): free space, or give another folder"):
            save_clip(tmp_path / "video.mp4", start, 3.5, tmp_path / "moment")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", num_frames=10)
    with pytest.raises(InputError, match=r"cannot write .*none.*\(No such file or directory\): give another folder"):
        save_clip(tmp_path / "video.mp4", 0, 1, tmp_path / "none" / "moment")


def test_videos_that_cannot_be_cut(tmp_path: Path) -> None:
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"damaged\.mp4 is .*: give a video that can be played"):
        save_clip(tmp_path / "damaged.mp4", 0, 1, tmp_path / "moment")
    with pytest.raises(VideoError, match=r"gone\.mp4 cannot be opened"):
        save_clip(tmp_path / "gone.mp4", 0, 1, tmp_path / "moment")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.mp4"]


FAULTY_CUT = """
import os, socket
from hbi_infer.video import cutting

def work(job, content, tell):
    cutting.write_moment = lambda *_: FAULT
    return cutting.work(job, content, tell)
"""


@pytest.mark.skipif(not can_confine(), reason="only Linux has these fences")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("socket.socket()", "made the process that was to cut it die of SIGSYS"),
        ("open('/etc/passwd')", "makes the decoder open another file, which its sandbox forbids"),
    ],
)
def test_a_video_that_breaks_a_rule_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    (tmp_path / "faulty_cut.py").write_text(FAULTY_CUT.replace("FAULT", fault))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hbi_infer.video.cutting.__name__", "faulty_cut")
    with pytest.raises(VideoError, match=message):
        cut(tmp_path, 0.0, 1.0)
    assert not list(tmp_path.glob("*moment*"))
