"""Videos that browsers play: copied where that is enough, else encoded anew, at the same times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hbi_infer.errors import VideoError
from hbi_infer.video import conversion
from hbi_infer.video.conversion import convert
from hbi_infer.video.moment import Target
from hbi_infer.video.sandbox import can_confine
from hbi_infer.worker_process import WorkerDiedError, run_job
from tests.builders.tiny_bundle import COLOURS, write_video
from tests.paths import ROOT

SAMPLES = {
    "blue-star-moves-down-while-purple-triangle-pulses.ts": "copied",
    "green-ring-bounces-then-pulses.mpg": "encoded",
    "red-circle-orbits-then-bounces-next-to-still-small-cyan-star.mkv": None,
    "red-cross-moves-up-while-yellow-star-shakes.webm": "copied",
    "small-cyan-circle-moves-left-then-green-circle-moves-left.mov": None,
    "two-big-red-rings-move-left.avi": "encoded",
}


def converted(path: Path, target: Path, most_seconds: float = 100.0) -> str:
    file = Target(target)
    with file:
        return convert(path, file, lambda *_: None, most_seconds=most_seconds)


def pictures(path: Path) -> dict[float, np.ndarray]:
    """Every frame of a file by its time from the file's start."""
    with av.open(path) as container:
        begin = (container.start_time or 0) / av.time_base
        return {
            round(frame.time - begin, 2): frame.reformat(64, 64, "rgb24").to_ndarray()
            for frame in container.decode(video=0)
            if frame.time is not None
        }


@pytest.mark.parametrize("name", SAMPLES)
def test_a_browser_gets_the_same_pictures_at_the_same_times(name: str, tmp_path: Path) -> None:
    how = converted(ROOT / "samples" / name, tmp_path / "a.mp4")
    assert how in ([SAMPLES[name]] if SAMPLES[name] else ["copied", "encoded"])
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name in ("h264", "vp9", "av1")
        assert stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p")
    before, after = pictures(ROOT / "samples" / name), pictures(tmp_path / "a.mp4")
    assert len(after) == len(before)
    for (seconds, picture), (same, other) in zip(before.items(), after.items(), strict=True):
        assert abs(seconds - same) <= 0.05
        assert np.abs(picture.astype(int) - other).mean() < 6, seconds


def write_with_sound(path: Path, codec: str, sound: str, size: tuple[int, int] = (64, 48)) -> Path:
    """Two seconds of red, with a tone that begins at once."""
    with av.open(path, "w") as out:
        video = out.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = out.add_stream(sound, rate=44_100)
        picture = np.full((size[1], size[0], 3), COLOURS["red"], np.uint8)
        for _ in range(20):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode(None))
        tone = np.sin(np.arange(2 * 44_100) * 2 * np.pi * 440 / 44_100)
        for start in range(0, len(tone), 1024):
            part = (tone[start : start + 1024] * 20_000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("codec", "sound", "how"), [("libx264", "aac", "copied"), ("mpeg4", "pcm_s16le", "encoded")])
def test_the_sound_comes_along(codec: str, sound: str, how: str, tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.mkv", codec, sound)
    assert converted(path, tmp_path / "b.mp4") == how
    with av.open(tmp_path / "b.mp4") as container:
        [audio] = container.streams.audio
        assert audio.codec_context.codec.canonical_name == "aac"
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio)])
    assert abs(len(samples) / audio.rate - 2.0) < 0.1
    assert np.abs(samples[: audio.rate]).mean() > 0.1


def test_large_pictures_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "MOST_SIDE", 100)
    path = write_with_sound(tmp_path / "a.mkv", "mpeg4", "pcm_s16le", (402, 202))
    converted(path, tmp_path / "b.mp4")
    with av.open(tmp_path / "b.mp4") as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (100, 50)


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="longer than 1 s"):
        converted(ROOT / "samples" / "two-big-red-rings-move-left.avi", tmp_path / "a.mp4", 1.0)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    job = {"target": str(tmp_path / "b.mp4"), "most_seconds": 9.0}
    for path in (tmp_path / "no.mp4", tmp_path / "none.mp4"):
        with pytest.raises(VideoError, match=path.name):
            run_job("hbi_infer.video.conversion", job | {"path": str(path)})
    red = write_video(tmp_path / "red.mp4", "red")
    assert run_job("hbi_infer.video.conversion", job | {"path": str(red)}) == {"how": "copied"}
    with pytest.raises(VideoError, match="free space"):
        run_job("hbi_infer.video.conversion", job | {"path": str(red), "target": "/dev/full"})


@pytest.mark.skipif(not can_confine(), reason="only Linux has these fences")
def test_a_video_that_breaks_a_rule_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_conversion.py").write_text(
        "import socket\nfrom hbi_infer.video import conversion\nwork = conversion.work\n"
        "conversion.convert = lambda *_, **__: socket.socket()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    red = write_video(tmp_path / "red.mp4", "red")
    job = {"path": str(red), "target": str(tmp_path / "b.mp4"), "most_seconds": 9.0}
    with pytest.raises(WorkerDiedError, match="of SIGSYS"):
        run_job("faulty_conversion", job)
