"""Videos recognised by their content, whatever their name."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hbi_infer.video.content import has_video, is_photo
from tests.builders.video_files import FORMATS, Format, write_audio, write_tone, write_video

OTHER_CONTAINERS = {
    "ogg": Format(".ogg", "libvpx", muxer="ogg"),
    "hevc": Format(".hevc", "libx265", muxer="hevc", options={"x265-params": "log-level=none"}),
    "m1v": Format(".m1v", "mpeg1video", muxer="mpeg1video"),
    "m2v": Format(".m2v", "mpeg2video", muxer="mpeg2video"),
    "vcd": Format(".dat", "mpeg1video", muxer="vcd"),
    "fragmented": Format(".mp4", "libx264"),
}
SLOW_TO_WRITE = ("mp4-hevc", "mp4-av1")
"""Formats in a container that another one has too."""


@pytest.mark.parametrize("kind", [*(kind for kind in FORMATS if kind not in SLOW_TO_WRITE), *OTHER_CONTAINERS])
def test_every_container_that_is_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, how in OTHER_CONTAINERS.items():
        monkeypatch.setitem(FORMATS, name, how)
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == "fragmented" else None
    file = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(file, kind, num_frames=12, container_options=options)
    assert has_video(file)


def test_a_transport_stream_that_begins_within_a_packet(tmp_path: Path) -> None:
    write_video(tmp_path / "a.ts", "ts", num_frames=25)
    (tmp_path / "cut").write_bytes((tmp_path / "a.ts").read_bytes()[100:])
    (tmp_path / "bluray").write_bytes(
        b"".join(b"\1\2\3\4" + packet for packet in np.frombuffer((tmp_path / "a.ts").read_bytes(), "V188").tolist())
    )
    assert has_video(tmp_path / "cut")
    assert has_video(tmp_path / "bluray")


def write_sound(path: Path, codec: str, muxer: str) -> None:
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else 44_100)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 64_000
        write_tone(container, stream, seconds=0.5)


def test_sound_pictures_and_texts_are_no_videos(tmp_path: Path) -> None:
    write_audio(tmp_path / "sound.mp4")
    write_audio(tmp_path / "cover.mp4", cover=True)
    for name, codec, muxer in (
        ("a.mka", "libopus", "matroska"),
        ("a.ogg", "libopus", "ogg"),
        ("a.wma", "wmav2", "asf"),
        ("a.flv", "aac", "flv"),
        ("a.mp2", "mp2", "mpeg"),
        ("a.m4a", "aac", "ipod"),
        ("a.mp3", "libmp3lame", "mp3"),
        ("a.wav", "pcm_s16le", "wav"),
    ):
        write_sound(tmp_path / name, codec, muxer)
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.webp")
    (tmp_path / "genes.fasta").write_text("G" * 20_000)
    (tmp_path / "playlist.m3u8").write_text("#EXTM3U\nsecret.ts\n")
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(100_000))
    assert [path.name for path in sorted(tmp_path.iterdir()) if has_video(path)] == []


def test_boxes_that_lie_about_their_size_end_the_search(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=5)
    whole = (tmp_path / "a.mp4").read_bytes()
    for size in (0, 2, 7, 2**31):
        (tmp_path / "liar").write_bytes(whole[:28] + size.to_bytes(4, "big") + whole[32:36] + whole[36:60])
        assert not has_video(tmp_path / "liar")
    nested = b"\0\0\0\x08trak" * 100_000
    (tmp_path / "nested").write_bytes((len(nested) + 8).to_bytes(4, "big") + b"moov" + nested)
    assert not has_video(tmp_path / "nested")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    with pytest.raises(FileNotFoundError):
        has_video(tmp_path / "none")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_picture_is_known_by_its_content(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "file", kind)
    assert is_photo(tmp_path / "file")
    assert not has_video(tmp_path / "file")


def test_a_suffix_makes_a_picture_of_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"nothing")
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    write_video(tmp_path / "b.mp4", num_frames=3)
    (tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    assert [is_photo(tmp_path / name) for name in ("a.HEIC", "a.mp4", "b.jpg")] == [True, False, False]
