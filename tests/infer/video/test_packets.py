"""Files that are not what they seem: every one gives a plain reason, and what could be read is kept."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import av
import pytest

from hbi_infer.errors import VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video import packets
from hbi_infer.video.decoded_video import Clip
from hbi_infer.video.packets import MAX_PIXELS, TooLargeError, check_size
from hbi_infer.video.reader import decode, decode_clips, probe
from tests.builders.video_files import (
    FORMATS,
    claim_duration,
    cut,
    numbered_frame,
    overwrite_packet,
    write_audio,
    write_video,
)
from tests.infer.video.test_reader import numbers

ONE_A_SECOND = FrameSampling(image_size=64)
NOT_A_VIDEO = "is not a video that can be read here, or its beginning is damaged"
TEXT = "is a text file, not a video"
NO_INDEX = "is cut short or damaged: the index (moov) of this mp4 is missing"


def failed(path: Path) -> str:
    """Decode and probe what cannot be read; return the reason."""
    video = decode(path, ONE_A_SECOND)
    assert video.status == "failed"
    assert (video.path, video.info, video.clips) == (path, None, ())
    with pytest.raises(VideoError) as raised:
        probe(path)
    assert str(raised.value) == f"{str(path)!r} {video.reason}"
    return video.reason


CONTENTS = {
    "empty": (b"", "is empty"),
    "text": (b"This is no video.\n" * 100, TEXT),
    "long-text": ("export const größe: number = 1;\n".encode() * 1000, TEXT),
    "other-text": ("größe".encode("latin-1") * 100, NOT_A_VIDEO),
    "garbage": (bytes((37 * number * number + 11) % 256 for number in range(50_000)), NOT_A_VIDEO),
    "zeros": (bytes(50_000), NOT_A_VIDEO),
    "only-ftyp": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", NO_INDEX),
    "ebml-only": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01", NOT_A_VIDEO),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".ts"])
def test_no_video_at_all(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"video{suffix}"
    data, reason = CONTENTS[content]
    path.write_bytes(data)
    assert failed(path) == reason


def test_sound_only_and_a_cover(tmp_path: Path) -> None:
    write_audio(tmp_path / "sound.mp4")
    assert failed(tmp_path / "sound.mp4") == "has no video stream"
    write_audio(tmp_path / "album.mp4", cover=True)
    assert failed(tmp_path / "album.mp4") == "has no video stream, only a picture as its cover"


ENCRYPTED = "is encrypted (DRM) and cannot be decoded: give a copy that any player can play"
KEYS = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}


def test_an_encrypted_mp4(tmp_path: Path) -> None:
    options = {"encryption_scheme": "cenc-aes-ctr", **KEYS}
    write_video(tmp_path / "video.mp4", num_frames=10, container_options=options, with_audio=True)
    assert failed(tmp_path / "video.mp4") == ENCRYPTED


def test_a_protected_wmv(tmp_path: Path) -> None:
    """The muxer writes any metadata; a protected file has this one."""
    with av.open(str(tmp_path / "video.wmv"), "w", format="asf") as container:
        container.metadata["ASF_Protection_Type"] = "DRM"
        stream = container.add_stream("wmv2", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 96
        frame = av.VideoFrame.from_ndarray(numbered_frame(0, 96, 96), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert failed(tmp_path / "video.wmv") == ENCRYPTED


def test_a_file_that_the_system_keeps_from_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "video.mp4", num_frames=2)

    def refuse(self: Path) -> os.stat_result:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    video = decode(tmp_path / "video.mp4", ONE_A_SECOND)
    assert (video.status, video.problem) == ("failed", "not_opened")
    assert "the system does not let this program read it" in video.reason


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert failed(tmp_path / "pipe.mp4") == "is not a regular file"
    (tmp_path / "folder.mp4").mkdir()
    assert failed(tmp_path / "folder.mp4") == "is a folder, not a file"
    assert failed(tmp_path / "nowhere.mp4") == "cannot be opened: No such file or directory"
    assert failed(Path("null\0byte.mp4")) == "cannot be opened: embedded null byte"


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 33\n",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_video(tmp_path / "secret.ts", "ts")
    (tmp_path / "list.mp4").write_text(playlist.format("secret.ts"))
    assert failed(tmp_path / "list.mp4") == TEXT


@pytest.mark.parametrize("kind", ["mp4", "mov", "3gp"])
def test_an_mp4_that_was_never_finished(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind)
    cut(path, 0.6)
    assert failed(path) == NO_INDEX


@pytest.mark.parametrize("with_audio", [False, True])
def test_a_download_that_broke_off(tmp_path: Path, with_audio: bool) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, container_options={"movflags": "faststart"}, with_audio=with_audio, moving=True)
    cut(path, 0.6)
    video = decode(path, ONE_A_SECOND)
    assert video.status == "partial"
    assert "cut short" in video.reason
    assert numbers(video.clips[0])[:2] == [0, 25]
    assert video.info is not None
    assert 2 < (video.info.duration_seconds or 0) < 3
    assert probe(path) == video.info


@pytest.mark.parametrize("kind", ["mkv", "webm", "avi", "flv", "mkv-ffv1", "avi-mjpeg"])
def test_what_is_there_of_a_cut_file_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, moving=True)
    cut(path, 0.6)
    video = decode(path, ONE_A_SECOND)
    assert video.status == "partial"
    assert "cut short" in video.reason
    assert numbers(video.clips[0])[:2] == [0, 25]


@pytest.mark.parametrize("kind", ["ts", "mpg", "gif", "wmv", "mpg-mpeg2"])
def test_a_cut_file_whose_format_knows_no_end_is_read_to_where_it_ends(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, moving=True)
    cut(path, 0.6)
    video = decode(path, ONE_A_SECOND)
    assert video.status in ("ok", "partial")
    assert numbers(video.clips[0])[:2] == [0, 25]


@pytest.mark.parametrize("kind", ["wmv", "mpg-mpeg2"])
def test_a_frame_cut_in_two_is_not_shown(tmp_path: Path, kind: str) -> None:
    """These decoders fill the missing part in and only mark the frame."""
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind)
    cut(path, 0.6)
    video = decode(path, FrameSampling(image_size=64, frames_per_second=25, max_frames=100))
    assert video.status == "partial"
    assert "incomplete data" in video.reason
    assert numbers(video.clips[0]) == list(range(len(numbers(video.clips[0]))))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("kind", FORMATS)
def test_no_cut_raises(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"video{FORMATS[kind].suffix}"
    write_video(path, kind, num_frames=30, with_audio=FORMATS[kind].audio_codec is not None)
    cut(path, share)
    video = decode(path, ONE_A_SECOND)
    assert (video.status == "failed") == (not video.clips)
    assert bool(video.reason) == (video.status != "ok")
    assert all(clip.mask.any() for clip in video.clips)


def test_a_video_with_too_many_frames_ends_where_looking_at_them_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last wanted frame is spoilt, so that the next good one is looked for beyond that place."""
    path = tmp_path / "video.avi"
    write_video(path, "avi-mjpeg", keyframe_interval=1)
    for number in range(50, 60):
        overwrite_packet(path, number)
    monkeypatch.setattr("hbi_infer.video.packets.MAX_PACKETS", 60)
    video = decode(path, ONE_A_SECOND)
    assert (video.status, video.problem) == ("partial", "too_large")
    assert "it has more than 60 frames" in video.reason
    assert numbers(video.clips[0]) == [0, 25]


def test_a_damaged_frame_gives_way_to_the_next_good_one(tmp_path: Path) -> None:
    """The frames of an intra-coded video stand alone: only the damaged one is lost."""
    path = tmp_path / "video.avi"
    write_video(path, "avi-mjpeg", keyframe_interval=1)
    overwrite_packet(path, 25)
    video = decode(path, ONE_A_SECOND)
    assert video.status == "partial"
    assert video.reason.startswith("is damaged at 1.0 s: not every frame could be decoded")
    assert numbers(video.clips[0]) == [0, 50, 75]


def test_damage_in_the_middle_of_a_group(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    write_video(path, "mkv", moving=True, keyframe_interval=25, options={"sc_threshold": "0"})
    for number in range(26, 50):
        overwrite_packet(path, number)
    video = decode(path, FrameSampling(image_size=64, frames_per_second=5, max_frames=20))
    assert video.status == "partial"
    assert "is damaged at 1." in video.reason
    read = numbers(video.clips[0])
    assert {0, 5, 10, 15, 20, 50, 55, 60, 95} <= set(read)


def test_claims_are_not_believed(tmp_path: Path) -> None:
    """Four seconds that say they last eleven days give one clip, not 83 thousand."""
    path = tmp_path / "video.mkv"
    write_video(path, "mkv")
    claim_duration(path, 1_000_000)
    video = decode(path, ONE_A_SECOND)
    assert video.status == "partial"
    assert video.reason == "is cut short: it says that it lasts 1000000.0 s and ends after 4.0 s"
    assert [numbers(clip) for clip in video.clips] == [[0, 25, 50, 75]]


def test_absurd_times_give_a_clip_for_each_frame_at_most(tmp_path: Path) -> None:
    """Ten frames of eleven days each."""
    path = tmp_path / "video.mkv"
    write_video(path, "mkv-ffv1", num_frames=10, timestamps_seconds=[1e6 * number for number in range(10)])
    video = decode(path, ONE_A_SECOND)
    assert len(video.clips) == 10
    assert [numbers(clip) for clip in video.clips] == [[number] for number in range(10)]


def test_absurd_frame_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.avi"
    write_video(path, "mkv-ffv1", num_frames=1, width=16_400, height=16)
    assert failed(path) == "says that its frames have 16400 x 16 pixels; at most 16384 a side are read"
    path = tmp_path / "claims.gif"
    write_video(path, "gif", num_frames=2)
    data = bytearray(path.read_bytes())
    data[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert failed(path)


def test_recordings_joined_end_to_end(tmp_path: Path) -> None:
    """The clock of the second one starts again: frames are then counted."""
    part, whole = tmp_path / "part.ts", tmp_path / "whole.ts"
    write_video(part, "ts")
    whole.write_bytes(part.read_bytes() * 2)
    video = decode(whole, ONE_A_SECOND)
    assert video.status == "ok"
    assert numbers(video.clips[0]) == [0, 25, 50, 75] * 2


def test_a_recording_with_sound_in_the_middle_only(tmp_path: Path) -> None:
    """FFmpeg looks for streams at both ends."""
    silent, whole = tmp_path / "silent.ts", tmp_path / "whole.ts"
    write_video(silent, "ts", num_frames=500)
    write_video(whole, "ts", with_audio=True)
    whole.write_bytes(silent.read_bytes() * 2 + whole.read_bytes() + silent.read_bytes() * 2)
    video = decode(whole, ONE_A_SECOND)
    assert (video.status, video.reason) == ("ok", "")
    assert [number for clip in video.clips for number in numbers(clip)] == [
        *[*range(0, 500, 25)] * 2,
        *[0, 25, 50, 75],
        *[*range(0, 500, 25)] * 2,
    ]


def test_a_recording_that_starts_between_keyframes(tmp_path: Path) -> None:
    path = tmp_path / "video.ts"
    write_video(path, "ts", num_frames=200, moving=True, keyframe_interval=50, options={"sc_threshold": "0"})
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 10 // 188 * 188 :])
    video = decode(path, ONE_A_SECOND)
    assert video.clips
    assert set(numbers(video.clips[0])) <= set(range(200))


def test_ffmpeg_stays_silent(tmp_path: Path) -> None:
    """Nothing reaches the terminal, from Python's logging neither."""
    for kind in ("mkv", "avi-mjpeg", "mpg", "ts"):
        path = tmp_path / f"{kind}{FORMATS[kind].suffix}"
        write_video(path, kind, moving=True)
        cut(path, 0.6)
    (tmp_path / "text.mp4").write_text("no video")
    code = (
        "import sys; from pathlib import Path; from hbi_infer.options import FrameSampling; "
        "from hbi_infer.video import decode, find_videos; "
        "assert len([decode(path, FrameSampling()) for path in find_videos(Path(sys.argv[1]))]) == 5"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_area_of_a_frame_is_bounded() -> None:
    check_size(10_000, MAX_PIXELS // 10_000, "has")
    with pytest.raises(TooLargeError, match=r"^has 10000 x 8001 pixels; at most 80 million are read$"):
        check_size(10_000, MAX_PIXELS // 10_000 + 1, "has")


def test_a_gif_with_an_absurd_canvas_is_refused_before_its_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "large.gif"
    write_video(path, "gif", num_frames=2, width=32, height=32)
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<HH", 16_000, 12_000)
    path.write_bytes(content)
    assert failed(path) == "has frames of more than 80 million pixels"
    assert decode(path, ONE_A_SECOND).problem == "too_large"


def test_frames_that_become_too_large_leave_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, large = tmp_path / "video.ts", tmp_path / "large.ts"
    write_video(path, "ts-mpeg2", num_frames=50)
    write_video(large, "ts-mpeg2", num_frames=25, width=640, height=480)
    with path.open("ab") as file:
        file.write(large.read_bytes())
    monkeypatch.setattr(packets, "DECODER_OPTIONS", {"max_pixels": "100000"})
    video = decode(path, ONE_A_SECOND)
    assert (video.status, video.problem) == ("partial", "too_large")
    assert numbers(video.clips[0])[:2] == [0, 25]


def test_the_streams_of_a_file_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, num_frames=2, container_options={"movflags": "faststart"})
    content = path.read_bytes()
    at = content.index(b"moov") - 4
    moov = content[at : at + int.from_bytes(content[at : at + 4])]
    start = moov.index(b"trak") - 4
    track = moov[start : start + int.from_bytes(moov[start : start + 4])]
    moov += 1000 * track
    path.write_bytes(content[:at] + len(moov).to_bytes(4) + moov[4:])
    assert failed(path) == "needs more memory than there is to decode, or has more than 1000 streams"


def test_the_number_of_packets_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video.mkv"
    write_video(path, "mkv-ffv1", num_frames=100)
    monkeypatch.setattr(packets, "MAX_PACKETS", 60)
    video = decode(path, ONE_A_SECOND)
    assert (video.status, video.problem) == ("partial", "too_large")
    assert video.reason == "could be read only as far as 2.4 s (it has more than 60 frames)"
    assert numbers(video.clips[0]) == [0, 25, 50]


def test_what_is_read_in_time_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video.mkv"
    write_video(path, "mkv-ffv1", num_frames=100)
    monkeypatch.setattr(packets, "_PACKETS_PER_PROGRESS", 30)
    calls = iter(range(10))

    def progress() -> None:
        if next(calls) == 2:
            raise TimeoutError("reading it took longer than 9 s")

    clips: list[Clip] = []
    video = decode_clips(path, ONE_A_SECOND, lambda _info, clip: clips.append(clip), progress=progress)
    assert (video.status, video.problem, video.clips) == ("partial", "too_slow", ())
    assert video.reason == "could be read only as far as 2.4 s (reading it took longer than 9 s)"
    assert numbers(clips[0]) == [0, 25, 50]
