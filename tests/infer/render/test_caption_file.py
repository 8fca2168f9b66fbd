"""Captions as files, and the file that an interrupted run goes on from."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from hbi_infer.errors import InputError
from hbi_infer.index.clip_tokens import ClipPlace
from hbi_infer.options import Decoding
from hbi_infer.render.caption_file import CaptionTarget, Format, UnfinishedCaptions, rendered, run_header
from hbi_infer.tasks.caption import Caption

HEADER = run_header("abc", Path("videos"), Decoding())


def make(path: Path | str = "a.mp4", clip: int = 1, **fields: Any) -> Caption:
    given = {"start_seconds": 2.0 * clip - 2, "end_seconds": 2.0 * clip, "text": "a red video"} | fields
    return Caption(path=Path(path), clip=clip, log_probability=-0.5, is_complete=True, **given)


def place_of(caption: Caption) -> ClipPlace:
    return ClipPlace(
        path=caption.path,
        clip=caption.clip,
        start_seconds=caption.start_seconds,
        end_seconds=caption.end_seconds,
        file_version="1 2",
    )


def test_json_lines_and_csv() -> None:
    captions = [make(), make("sub/b, c.mp4", 2, text='a "red" one')]
    lines = rendered(captions, "jsonl", str).splitlines()
    assert [json.loads(line) for line in lines] == [caption.to_json() for caption in captions]
    rows = list(csv.DictReader(io.StringIO(rendered(captions, "csv", lambda path: f"videos/{path}"))))
    assert rows[1] == {
        "file": "videos/sub/b, c.mp4",
        "clip": "2",
        "start_seconds": "2.000",
        "end_seconds": "4.000",
        "caption": 'a "red" one',
        "log_probability": "-0.500000",
    }


def cues(path: Path) -> list[tuple[float, float, str]]:
    """What FFmpeg reads of a file of subtitles: start, end, text."""
    with av.open(path) as container:
        (stream,) = container.streams.subtitles
        found = []
        for packet in container.demux(stream):
            if packet.size:
                assert packet.pts is not None
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), bytes(packet).decode()))
        return found


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_open_in_a_player(tmp_path: Path, kind: Format) -> None:
    captions = [
        make(text="a red video"),
        make(clip=2, text="  "),
        make(clip=3, text="one\n\n--> two\x00", end_seconds=6.0004),
        make(clip=4, start_seconds=3600.5, end_seconds=3600.5, text="still"),
    ]
    path = tmp_path / f"a.{kind}"
    path.write_text(rendered(captions, kind, str), encoding="utf-8")
    first, third, fourth = cues(path)
    assert first == (0.0, 2.0, "a red video")
    assert third[:2] == (4.0, 6.0)
    assert third[2] == ("one → two" if kind == "srt" else "one --&gt; two")
    assert fourth[:2] == pytest.approx((3600.5, 3600.501))


def test_markup_in_a_caption_is_text_in_webvtt() -> None:
    assert "&lt;b&gt; R&amp;D" in rendered([make(text="<b> R&D")], "vtt", str)


def target(tmp_path: Path, name: str, kind: Format, **options: Any) -> CaptionTarget:
    videos = tmp_path / "videos"
    videos.mkdir(exist_ok=True)
    return CaptionTarget(videos=videos, out=tmp_path / name, format=kind, **options)


def test_subtitles_of_a_folder_are_a_file_for_each_video(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a.mp4", "a.mkv", "sub/b.mp4", "sub/c.d.mp4", "failed.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).touch()
    captions = [make(videos / name) for name in ("a.mkv", "a.mp4", "sub/b.mp4", "sub/c.d.mp4")]
    captions.append(make(videos / "sub/b.mp4", 2))
    place = target(tmp_path, "out", "srt")
    place.check()
    place.write(captions, str)
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.mkv.srt", "a.mp4.srt", "sub/b.srt", "sub/c.d.srt"]
    assert len(cues(tmp_path / "out" / "sub" / "b.srt")) == 2
    with pytest.raises(InputError, match=r"out/.*\.srt exists already: give --force"):
        place.check()
    replace(place, overwrite=True).check()
    # Beside the videos, too: what is there is no subtitle.
    replace(place, out=videos).check()


def test_what_one_video_costs_no_other(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a.mp4", "sub/b.mp4", "z.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).touch()
    captions = [make(videos / name) for name in ("a.mp4", "sub/b.mp4", "z.mp4")]
    place = target(tmp_path, "out", "srt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").touch()
    place.check()
    errors = place.write(captions, str)
    assert [path.name for path in errors] == ["b.mp4"]
    assert re.fullmatch(
        r"cannot write .*out/sub/b\.srt \(File exists\): give another --out", str(errors[videos / "sub" / "b.mp4"])
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.srt", "sub", "z.srt"]
    with pytest.raises(InputError, match=r"a\.srt exists already: give --force"):
        place.check()
    with pytest.raises(InputError, match=r"a\.srt exists already"):
        place.write(captions, str)


def test_files_of_long_and_of_like_names(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    names = ("a.mp4", "a.mkv", "a.mp4.avi", "A.MP4", "m" * 250 + ".avi", "é" * 125 + ".mp4")
    videos.mkdir()
    for name in names:
        (videos / name).touch()
    place = target(tmp_path, "out", "vtt")
    place.check()
    assert place.write([make(videos / name, text=name) for name in names], str) == {}
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert len(written) == len(names)
    assert all(sum(text.endswith(f"\n{name}\n\n") for text in written) == 1 for name in names)
    with pytest.raises(InputError, match="exists already"):
        place.check()
    (videos / "a.mkv").unlink()
    assert place.write([], str) == {}


def test_the_file_to_go_on_from_has_room_for_its_name(tmp_path: Path) -> None:
    place = target(tmp_path, "m" * 249 + ".jsonl", "jsonl")
    with UnfinishedCaptions(place.partial, HEADER) as unfinished:
        unfinished.add(place_of(make()), make())
    assert place.write([make()], str) == {}
    assert place.out.exists()


def test_formulas_in_csv_are_text() -> None:
    assert "'=1+1,-0.500000" in rendered([make(text="=1+1")], "csv", str)
    assert rendered([make("-a.mp4")], "csv", str).splitlines()[1].startswith("'-a.mp4,1,0.000,")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    for bad, message in (
        (target(tmp_path, "there.csv", "csv"), r"there\.csv exists already: give --force"),
        (target(tmp_path, "none/a.csv", "csv"), r"there is no folder .*none to write a\.csv to"),
        (target(tmp_path, "none/subtitles", "srt"), r"there is no folder .*none to write subtitles to"),
        (target(tmp_path, "a.srt", "srt"), r"would hold the subtitles of every video in .*videos: give the name of a"),
        (target(tmp_path, "there.csv", "vtt"), r"would hold the subtitles of every video"),
    ):
        with pytest.raises(InputError, match=message):
            bad.check()
    late = target(tmp_path, "late.csv", "csv")
    late.check()
    (tmp_path / "late.csv").write_text("of somebody else")
    with pytest.raises(InputError, match=r"late\.csv exists already"):
        late.write([make()], str)
    assert (tmp_path / "late.csv").read_text() == "of somebody else"
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder\.csv \(Is a directory\)"):
        target(tmp_path, "folder.csv", "csv", overwrite=True).write([make()], str)
    assert not list(tmp_path.glob(".*")), "no half-written file is left"


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl.partial"
    captions = [make(clip=number, start_seconds=0.1 * number) for number in range(1, 4)]
    with UnfinishedCaptions(path, HEADER) as unfinished:
        for caption in captions[:2]:
            unfinished.add(place_of(caption), caption)
        kept = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(kept) == 3, "each line is on the disk at once"
    with UnfinishedCaptions(path, HEADER) as unfinished:
        assert unfinished.captions == {place_of(caption): caption for caption in captions[:2]}
        unfinished.add(place_of(captions[2]), captions[2])
    with UnfinishedCaptions(path, HEADER) as unfinished:
        assert list(unfinished.captions.values()) == captions
        unfinished.remove()
    assert not path.exists()


@pytest.mark.parametrize("torn", [b'{"file_version": "1 2", "pa', b"\0\0\0\0\n", b'{"file_version": "1"}\n', b"3\n"])
def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "out.partial"
    one, two = make(), make(clip=2)
    with UnfinishedCaptions(path, HEADER) as unfinished:
        unfinished.add(place_of(one), one)
    with path.open("ab") as file:
        file.write(torn)
    with UnfinishedCaptions(path, HEADER) as unfinished:
        assert list(unfinished.captions.values()) == [one]
        unfinished.add(place_of(two), two)
    with UnfinishedCaptions(path, HEADER) as unfinished:
        assert list(unfinished.captions.values()) == [one, two]
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (run_header("other", Path("videos"), Decoding()), "was begun with another model: give the same to go on with"),
        (
            run_header("abc", Path("videos"), Decoding(beam_size=1, max_tokens=9)),
            r"was begun with max_tokens 9 \(now 40\), beam_size 1 \(now 4\): give the same",
        ),
        (run_header("abc", Path("/elsewhere"), Decoding()), r"was begun with videos /elsewhere \(now .*videos\)"),
        (None, "is no file that captioning left: move it away, or give --force to begin anew"),
    ],
)
def test_captions_of_another_run_are_not_mixed_in(tmp_path: Path, header: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / "out.partial"
    if header is None:
        path.write_text("my notes\n")
    else:
        with UnfinishedCaptions(path, header) as unfinished:
            unfinished.add(place_of(make()), make())
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        UnfinishedCaptions(path, HEADER)
    assert path.read_bytes() == before
    with UnfinishedCaptions(path, HEADER, overwrite=True) as unfinished:
        assert unfinished.captions == {}
    assert not path.exists(), "there is nothing to go on from"


def test_one_process_has_it_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.partial"
    with UnfinishedCaptions(path, HEADER), pytest.raises(InputError, match="another process is writing"):
        UnfinishedCaptions(path, HEADER)
    UnfinishedCaptions(path, HEADER).__exit__(None, None, None)


def test_a_full_disk_is_told_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "out.partial"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with UnfinishedCaptions(path, HEADER) as unfinished:
        unfinished.add(place_of(make()), make())
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        try:
            with pytest.raises(InputError, match=r"cannot write .*out\.partial \(File too large\): free space"):
                unfinished.add(place_of(make(clip=2)), make(clip=2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with UnfinishedCaptions(path, HEADER) as unfinished:
        assert list(unfinished.captions.values()) == [make()]
