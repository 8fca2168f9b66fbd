"""Timelines for video editors: files, places and rates, read back by OpenTimelineIO."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.render.timeline import check_timeline, exact_rate, timecode_rate, write_timeline
from hbi_infer.tasks.search import Match
from tests.builders.video_files import write_video

NTSC = Fraction(30000, 1001)


@pytest.fixture
def answers(tmp_path: Path) -> list[tuple[str, list[Match]]]:
    """Two results of videos of different rates, and one of a second query."""
    first, second = tmp_path / "a clip #1.mp4", tmp_path / "b.mkv"
    write_video(first, num_frames=90, frames_per_second=NTSC)
    write_video(second, "mkv", num_frames=100, frames_per_second=25)
    match = Match(
        rank=1,
        score=0.5,
        path=first,
        start_seconds=float(30 / NTSC),
        end_seconds=float(75 / NTSC),
        best_frame_seconds=(),
        video_seconds=None,
    )
    other = replace(match, rank=2, path=second, start_seconds=2.0, end_seconds=4.0)
    return [("a first\nquery", [match, other]), ("another", [replace(other, rank=1, start_seconds=0.0)])]


def test_rates_are_the_usual_ones() -> None:
    assert [exact_rate(rate) for rate in (29.97003, 23.976, 25.0001, 12.0)] == [
        NTSC, Fraction(24000, 1001), Fraction(25), Fraction(12)
    ]  # fmt: skip
    assert exact_rate(16.555) == pytest.approx(16.555, abs=1e-3)
    assert [timecode_rate(rate) for rate in (NTSC, Fraction(12), Fraction(10), Fraction(100))] == [NTSC, 24, 30, 60]


def test_frames_are_counted_at_the_rate_of_each_video(answers: list[tuple[str, list[Match]]], tmp_path: Path) -> None:
    otio = pytest.importorskip("opentimelineio")
    assert write_timeline(answers, tmp_path / "found.otio", overwrite=False) == {}
    timeline = otio.adapters.read_from_file(str(tmp_path / "found.otio"))
    first, second, third = timeline.find_clips()
    assert first.media_reference.target_url == answers[0][1][0].path.as_uri()
    place = first.source_range
    assert (place.start_time.value, place.duration.value) == (30, 45)
    assert place.start_time.rate == pytest.approx(float(NTSC))
    assert first.media_reference.available_range.duration.value == 90
    assert (second.source_range.start_time.value, second.source_range.duration.value) == (50, 50)
    assert second.source_range.start_time.rate == 25
    assert third.source_range.duration.value == 100
    assert first.metadata["hbi_infer"]["query"] == "a first\nquery"


def test_an_edl_has_one_rate_and_a_line_for_each_fact(answers: list[tuple[str, list[Match]]], tmp_path: Path) -> None:
    otio = pytest.importorskip("opentimelineio")
    pytest.importorskip("otio_cmx3600_adapter")
    write_timeline(answers, tmp_path / "found.edl", overwrite=False)
    text = (tmp_path / "found.edl").read_text()
    assert text.startswith("TITLE: a first\\nquery; another\n")
    timeline = otio.adapters.read_from_file(str(tmp_path / "found.edl"), rate=float(NTSC))
    clips = list(timeline.find_clips())
    assert [clip.name for clip in clips] == ["a clip #1.mp4", "b.mkv", "b.mkv"]
    seconds = [(clip.source_range.start_time.to_seconds(), clip.source_range.duration.to_seconds()) for clip in clips]
    for (start, length), wanted in zip(seconds, [(30 / NTSC, 45 / NTSC), (2, 2), (0, 4)], strict=True):
        assert start == pytest.approx(float(wanted[0]), abs=0.05)
        assert length == pytest.approx(float(wanted[1]), abs=0.05)


def test_final_cut_takes_the_timeline(answers: list[tuple[str, list[Match]]], tmp_path: Path) -> None:
    otio = pytest.importorskip("opentimelineio")
    pytest.importorskip("otio_fcpx_xml_adapter")
    write_timeline(answers, tmp_path / "found.fcpxml", overwrite=False)
    text = (tmp_path / "found.fcpxml").read_text()
    assert answers[0][1][0].path.as_uri() in text
    assert re.findall(r'frameDuration="([^"]+)"', text) == ["1001/30000s", "1/25s"]
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n<fcpxml')
    read = otio.adapters.read_from_string(text, "fcpx_xml")
    clips = (
        list(read.find_clips())
        if hasattr(read, "find_clips")
        else [clip for each in read for clip in ([each] if isinstance(each, otio.schema.Clip) else each.find_clips())]
    )
    assert {clip.media_reference.target_url for clip in clips} == {match.path.as_uri() for match in answers[0][1]}


def test_a_video_that_is_gone_is_left_out(answers: list[tuple[str, list[Match]]], tmp_path: Path) -> None:
    otio = pytest.importorskip("opentimelineio")
    answers[0][1][0].path.unlink()
    failed = write_timeline(answers, tmp_path / "found.otio", overwrite=False)
    assert list(failed) == [answers[0][1][0].path]
    assert len(list(otio.adapters.read_from_file(str(tmp_path / "found.otio")).find_clips())) == 2


def test_timelines_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"found\.aaf is of no known format of timelines: give a name that ends in \.otio, \.edl, \.fcpxml"
    with pytest.raises(InputError, match=message):
        check_timeline(tmp_path / "found.aaf")
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(InputError, match=r'needs OpenTimelineIO: install it with pip install "hbi-infer\[timeline\]"'):
        check_timeline(tmp_path / "found.edl")
