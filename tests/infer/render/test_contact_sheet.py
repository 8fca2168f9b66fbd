"""Contact sheets: the best frames as a picture and as a page, with any name."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbi_infer.errors import InputError
from hbi_infer.render.contact_sheet import check_sheet, write_sheet
from hbi_infer.tasks.search import Copy, Match
from tests.builders.tiny_bundle import COLOURS, write_video

EVIL = '<script>alert("1")</script>&amp;\n\x1b[2J'


@pytest.fixture
def match(tmp_path: Path) -> Match:
    """A result whose best frame is blue."""
    return Match(
        rank=1,
        score=1.25,
        path=write_video(tmp_path / "red then blue.mp4", "red", "blue"),
        start_seconds=0.0,
        end_seconds=4.0,
        best_frame_seconds=(3.0, 1.0),
        video_seconds=4.0,
    )


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_a_page_shows_the_best_frame_with_its_time_score_and_file(match: Match, tmp_path: Path) -> None:
    copies = (Copy(path=tmp_path / "b.mp4", start_seconds=0, end_seconds=4),)
    sections = [("a blue video", [replace(match, copies=copies, match=0.987)]), ("nothing", [])]
    assert write_sheet(sections, tmp_path / "sheet.html", overwrite=False, place=lambda path: path.name) == {}
    page = (tmp_path / "sheet.html").read_text()
    (picture,) = pictures(page)
    assert picture.width / picture.height == pytest.approx(64 / 48, abs=0.02), "the whole frame"
    np.testing.assert_allclose(np.asarray(picture)[60, 60], COLOURS["blue"], atol=25)
    text = re.sub(r"<[^>]+>", " ", page)
    for words in (
        "a blue video",
        "1 · 0:00.0 - 0:04.0",
        "red then blue.mp4",
        "best frame 0:03.0 · score 1.250 · match 0.99",
    ):
        assert words in text
    assert "1 more like it" in text
    assert "nothing found" in text
    assert f"{match.path.as_uri()}#t=0.000,4.000" in page
    assert "default-src 'none'" in page


def test_no_name_or_query_is_taken_for_html(match: Match, tmp_path: Path) -> None:
    evil = tmp_path / (EVIL.replace("/", "") + "\udcff.mp4")
    match.path.rename(evil)
    write_sheet([(EVIL, [replace(match, path=evil)])], tmp_path / "sheet.html", overwrite=False)
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

    page = (tmp_path / "sheet.html").read_text()
    Tags().feed(page)
    assert "script" not in tags
    assert len(pictures(page)) == 1
    assert "\x1b" not in page
    assert "\\udcff" in page


def test_a_picture_shows_the_best_frames_in_rows(match: Match, tmp_path: Path) -> None:
    results = [replace(match, rank=rank, best_frame_seconds=(1.0,)) for rank in range(1, 6)]
    write_sheet([("a red video", results)], tmp_path / "five.PNG", overwrite=False)
    write_sheet([("a red video", results[:4])], tmp_path / "four.png", overwrite=False)
    five, four = (Image.open(tmp_path / name).convert("RGB") for name in ("five.PNG", "four.png"))
    assert five.width == four.width
    assert five.height > four.height + 180
    red = (np.abs(np.asarray(five).astype(int) - COLOURS["red"]).max(axis=2) < 30).sum()
    assert red == pytest.approx(5 * 240 * 180, rel=0.05)


def test_a_video_that_is_gone_is_shown_without_a_frame(match: Match, tmp_path: Path) -> None:
    gone = replace(match, path=tmp_path / "gone.mp4")
    for name in ("sheet.html", "sheet.png"):
        failed = write_sheet([("q", [gone, match])], tmp_path / name, overwrite=False)
        assert list(failed) == [gone.path]
    page = (tmp_path / "sheet.html").read_text()
    assert "cannot be read" in page
    assert len(pictures(page)) == 1


def test_sheets_that_cannot_be_written(match: Match, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"sheet\.gif is of no known format .*: give a name that ends in \.png or \.html"
    ):
        check_sheet(tmp_path / "sheet.gif")
    (tmp_path / "sheet.png").touch()
    with pytest.raises(InputError, match=r"exists already: give --force to overwrite it, or another --sheet"):
        write_sheet([("q", [match])], tmp_path / "sheet.png", overwrite=False)
    write_sheet([("q", [match])], tmp_path / "sheet.png", overwrite=True)
    assert (tmp_path / "sheet.png").stat().st_size > 0
