"""Tables for people and lines for other programs."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hbi_infer.render.tables import show_explanation, show_explanation_file, show_matches
from hbi_infer.tasks.explain import Explanation
from hbi_infer.tasks.search import Copy, Match
from tests.builders.merged_explanation import merged

MATCH = Match(
    rank=1,
    score=1.25,
    path=Path("a\tb.mp4"),
    start_seconds=0.0,
    end_seconds=61.5,
    best_frame_seconds=(0.5, 60.25),
    video_seconds=61.5,
)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_lines_have_one_tab_between_fields(capsys: pytest.CaptureFixture[str]) -> None:
    show_matches([("red", [MATCH])], "tabs", lambda path: f"videos/{path}")
    assert capsys.readouterr().out == "red\t1\t1.250000\tvideos/a\\tb.mp4\t0.000\t61.500\t0.500 60.250\t0\t\n"


def test_a_match_stands_beside_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    match = replace(MATCH, match=0.9876)
    show_matches([("red", [match])], "table", str)
    assert re.search(r"^ *1 +1\.250 +0\.988 +a", capsys.readouterr().out, re.M)
    show_matches([("red", [match])], "tabs", str)
    assert capsys.readouterr().out.endswith("\t0.988\n")


def test_csv_has_a_header_and_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_matches([("red, blue", [MATCH])], "csv", str)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["query"], row["file"], row["end_seconds"]) == ("red, blue", "a\tb.mp4", "61.500")


def test_a_table_has_times_as_a_clock_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    show_matches([("red", [MATCH])], "table", str)
    assert re.search(r"^ *1 +1\.250 +a\\tb\.mp4 +0:00\.0-1:01\.5 +0:00\.5, 1:00\.2 *$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(("num_copies", "words"), [(1, "and 1 copy"), (2, "and 2 copies")])
def test_a_result_says_how_many_copies_are_folded_into_it(
    capsys: pytest.CaptureFixture[str], num_copies: int, words: str
) -> None:
    copies = tuple(Copy(path=Path(f"{number}.mp4"), start_seconds=0, end_seconds=1) for number in range(num_copies))
    match = replace(MATCH, copies=copies)
    show_matches([("red", [match])], "table", str)
    assert f"a\\tb.mp4 ({words})" in capsys.readouterr().out
    show_matches([("red", [match])], "tabs", str)
    assert capsys.readouterr().out.endswith(f"\t{num_copies}\t\n")


def test_columns_of_a_map_are_in_the_order_of_time(made: Explanation, capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation(merged(made), "table")
    shown = capsys.readouterr().out
    action = shown[shown.index("action: similarity") :]
    assert re.search(r"^ +seconds +0\.0, 1\.0 +0\.5, 1\.5 *$", action, re.M)
    assert re.search(r"^\[start\] a red video \[end\] +75 +25 +-50 *$", action, re.M)


def test_a_map_that_is_too_wide_goes_on_below(
    made: Explanation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    show_explanation(made, "table")
    heads = re.findall(r"^seconds +(0\.0|0\.5|1\.0|1\.5) .*$", capsys.readouterr().out, re.M)
    assert heads == ["0.0", "1.5"] * 2, "of the words and of a level of single frames"


def test_an_explanation_begins_with_the_sentence(made: Explanation, capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation(made, "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == made.word_map.sentence
    assert lines[2].startswith("words: interaction in units of ")


def test_lines_of_an_explanation_stay_in_the_order_of_tokens(
    made: Explanation, capsys: pytest.CaptureFixture[str]
) -> None:
    show_explanation(merged(made), "tabs")
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines() if line.startswith("action")]
    assert [line[2:] for line in lines] == [["0.500 1.500", "0.250000"], ["", "-0.500000"], ["0.000 1.000", "0.750000"]]


def test_a_written_file_is_one_line(made: Explanation, capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation_file(made, Path("why\n.png"))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('maps of "a red video" and ')
    assert line.endswith(f"clip 1 of 1 (0:00.0-0:02.0), score {made.score:.3f}, written to why\\n.png")


def test_a_clip_unlike_those_of_the_training_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    copy = Copy(path=Path("b.mp4"), start_seconds=0, end_seconds=1)
    show_matches([("red", [replace(MATCH, unfamiliar=True)])], "table", str)
    show_matches([("red", [replace(MATCH, unfamiliar=True, copies=(copy,))])], "table", str)
    shown = capsys.readouterr().out
    assert "a\\tb.mp4 (unfamiliar)" in shown
    assert "a\\tb.mp4 (and 1 copy, unfamiliar)" in shown
